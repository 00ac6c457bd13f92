package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mustermetal/muster/pkg/election"
)

// fence drives the election's pure core: one goroutine hands it events in order
// and carries out its effects in order. A vote is on disk before it is answered
// because Persist comes before Send in the list and nothing is reordered.
type fence struct {
	log  *slog.Logger
	core election.Core
	save func(election.State) error
	send func(ctx context.Context, to string, m election.Message) ([]election.Received, error)
	note func(string)
	// hindered hears why a state is not on disk yet, freed that it is.
	hindered, freed func(error)
	changed         func(d election.Decree)

	events chan fenceEvent
	timers map[election.TimerKind]*time.Timer

	mu      sync.Mutex
	decree  election.Decree
	explain string
	wrong   []string      // what an operator must see: surplus servers, other configurations
	waits   chan struct{} // closed and replaced when the decree changes
}

// fenceEvent is an event and, for a message, where its answer goes.
type fenceEvent struct {
	event   election.Event
	answers chan<- []election.Message
	order   *order // an operator's act
}

// order is an operator's act: it is weighed, and carried out only when yes is set
// and nothing speaks against it.
type order struct {
	yes     bool
	taken   atomic.Bool // by the fence, or back by who gave it and waits no longer
	weighed election.Order
	err     error
	done    chan struct{}
}

// sendTimeout bounds one delivery: a lost message is normal, the core asks again.
const sendTimeout = 3 * time.Second

func newFence(log *slog.Logger, core election.Core) *fence {
	return &fence{
		log: log, core: core,
		events: make(chan fenceEvent, 64),
		timers: map[election.TimerKind]*time.Timer{},
		waits:  make(chan struct{}),
	}
}

// run owns the core until ctx ends.
func (f *fence) run(ctx context.Context) error {
	defer func() {
		for _, t := range f.timers {
			t.Stop()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-f.events:
			if f.handle(ctx, e) != nil {
				return nil // ctx ended before a state was on disk
			}
		}
	}
}

func (f *fence) handle(ctx context.Context, e fenceEvent) error {
	if o := e.order; o != nil {
		if !o.taken.CompareAndSwap(false, true) {
			return nil
		}
		defer close(o.done)
		if o.weighed, o.err = f.core.Weigh(e.event); o.err != nil || !o.yes {
			return nil
		}
	}
	core, effects := f.core.Step(e.event)
	f.core = core
	var from string
	if r, ok := e.event.(election.Received); ok {
		from = r.From.Inst
	}
	var answers []election.Message
	for _, effect := range effects {
		switch effect := effect.(type) {
		case election.Persist:
			if err := f.persist(ctx, effect.State); err != nil {
				return err
			}
		case election.Send:
			if e.answers != nil && effect.To == from {
				answers = append(answers, effect.Message)
				continue
			}
			go f.deliver(ctx, effect)
		case election.SetTimer:
			f.setTimer(ctx, effect)
		case election.Note:
			f.note(effect.Text)
		}
	}
	f.publish(core.Decree(), core.Explain(), core.Problems())
	if e.answers != nil {
		e.answers <- answers
	}
	return nil
}

// persist returns when a state is on disk. Until then this server says nothing
// more in the fence, whose goroutine waits here; it goes on by itself when there
// is room again, and its status tells meanwhile. A state is written whole each
// time, so trying again is no weaker than the first try.
func (f *fence) persist(ctx context.Context, s election.State) error {
	var last error
	err := retry(ctx, func(context.Context) error {
		if err := f.save(s); err != nil {
			return fmt.Errorf("the fence cannot write its state, so it does not vote: %w", err)
		}
		return nil
	}, func(err error) {
		last = err
		f.hindered(err)
	})
	if err == nil && last != nil {
		f.freed(last)
	}
	return err
}

// deliver sends one message; its answers come back as events.
func (f *fence) deliver(ctx context.Context, s election.Send) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	answers, err := f.send(ctx, s.To, s.Message)
	if err != nil {
		f.log.Debug("fence message lost", "to", s.To, "kind", s.Message.Kind, "error", err)
		return
	}
	for _, a := range answers {
		f.tell(ctx, a)
	}
}

// tell hands an event to the core.
func (f *fence) tell(ctx context.Context, e election.Event) {
	select {
	case <-ctx.Done():
	case f.events <- fenceEvent{event: e}:
	}
}

// ask hands a caller's message to the core and returns what the core answers.
func (f *fence) ask(ctx context.Context, from election.Sender, m election.Message) ([]election.Message, error) {
	answers := make(chan []election.Message, 1)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case f.events <- fenceEvent{event: election.Received{From: from, Message: m}, answers: answers}:
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case a := <-answers:
		return a, nil
	}
}

// act hands an operator's act to the core, which weighs it first. Refused is what
// speaks against it; err says that the fence did not get to it in time, or not to
// its end.
func (f *fence) act(ctx context.Context, e election.Event, yes bool) (weighed election.Order, refused, err error) {
	o := &order{yes: yes, done: make(chan struct{})}
	select {
	case <-ctx.Done():
	case f.events <- fenceEvent{event: e, order: o}:
		select {
		case <-ctx.Done():
		case <-o.done:
			return o.weighed, o.err, nil
		}
	}
	if o.taken.CompareAndSwap(false, true) {
		return weighed, nil, errors.New("this server's fence did not get to it in time, and nothing was done; bootstrap status says what hinders it")
	}
	return weighed, nil, errors.New("this server's fence took it, but it is not on disk yet, and takes effect when it is; bootstrap status says what hinders it")
}

func (f *fence) setTimer(ctx context.Context, s election.SetTimer) {
	if t := f.timers[s.Kind]; t != nil {
		t.Stop()
	}
	if s.After <= 0 {
		delete(f.timers, s.Kind)
		return
	}
	f.timers[s.Kind] = time.AfterFunc(s.After, func() { f.tell(ctx, election.Timer{Kind: s.Kind}) })
}

// publish shows the decree when anything in it changed, the votes included.
func (f *fence) publish(d election.Decree, explain string, wrong []string) {
	f.mu.Lock()
	same := explain == f.explain && slices.Equal(wrong, f.wrong) && reflect.DeepEqual(d, f.decree)
	if !same {
		f.decree, f.explain, f.wrong = d, explain, wrong
		close(f.waits)
		f.waits = make(chan struct{})
	}
	f.mu.Unlock()
	if !same {
		f.changed(d)
	}
}

// read returns the decree.
func (f *fence) read() election.Decree {
	d, _, _ := f.look()
	return d
}

// problems returns what an operator must see.
func (f *fence) problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wrong
}

// look returns the decree, what the fence waits for, and a channel that closes
// when one of them changes.
func (f *fence) look() (d election.Decree, explanation string, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.decree, f.explain, f.waits
}
