package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Units are the agent's unit and the directory's.
type Units interface {
	// RestartAgent returns when the agent says that it is up; its error says what it
	// logged last.
	RestartAgent(ctx context.Context) error
	// Run names the run of the agent's unit, another one after each crash; failed says
	// that systemd does not start it again.
	Run(ctx context.Context) (invocation string, failed bool, err error)
	// RestartDirectory restarts the directory where it runs, and returns when it answers.
	RestartDirectory(ctx context.Context) error
}

// Agent says which program answers on the agent's socket, and whether this server
// is ready.
type Agent func(ctx context.Context) (sha256 string, ready bool, err error)

// Exchange carries orders out. It is run by the former program.
type Exchange struct {
	Path       string // of the order
	Program    string // where the agent lies
	Former     string // where the former one is kept, beside it
	Part       string // where muster-fetch looks for a whole program that lacks its name only
	Env        string // of muster-fetch
	Candidates string // where programs lie by their sha256, as they were fetched
	Write      WriteFile
	Units      Units
	Agent      Agent
	// Try runs a program and returns an error if it does not do what every agent can.
	Try func(ctx context.Context, program string) error
	Now func() time.Time
	Log *slog.Logger
}

// Times of a trial.
const (
	deadline    = 3 * time.Minute  // within which the new agent has to be ready; a restart takes seconds
	steady      = 20 * time.Second // for which it has to stay so
	look        = time.Second
	crashes     = 3 // as many, and it is not waited for
	tryDeadline = time.Minute
)

// Run goes on with the order on the disk until it is over. Power may be lost
// anywhere: it is called again, and each stage may be done twice.
func (e Exchange) Run(ctx context.Context) error {
	o, err := Read(e.Path)
	if err != nil || o == nil {
		return err
	}
	for !o.Stage.Over() {
		next, err := e.step(ctx, *o)
		if ctx.Err() != nil {
			return ctx.Err() // told to stop: the next boot goes on
		}
		if err != nil && o.Stage == Back {
			return err
		}
		if err != nil {
			o.Why = err.Error()
			e.Log.Warn("the new agent does not do", "stage", o.Stage, "sha256", o.To, "error", err)
		}
		o.Stage, o.Since = next, e.Now()
		if err := o.Write(e.Path, e.Write); err != nil {
			return err
		}
		e.Log.Info("exchange of agents", "stage", o.Stage, "from", o.From, "to", o.To)
	}
	return nil
}

// step does one stage and says which is next. With an error the next one leads back,
// or ends it where nothing was changed yet.
func (e Exchange) step(ctx context.Context, o Order) (Stage, error) {
	switch o.Stage {
	case Lay:
		if err := e.check(ctx, o); err != nil {
			return Returned, err
		}
		if err := e.place(filepath.Join(e.Candidates, o.To), o.To, o.Env); err != nil {
			return Back, err
		}
		return Trial, nil
	case Trial:
		if err := e.trial(ctx, o.To); err != nil {
			return Back, err
		}
		return Directory, nil
	case Directory:
		ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not within %s", deadline))
		defer cancel()
		if err := e.Units.RestartDirectory(ctx); err != nil {
			return Back, fmt.Errorf("the directory does not start from the new program: %w", err)
		}
		return Kept, nil
	case Back:
		return e.back(ctx, o)
	}
	return Returned, fmt.Errorf("the exchange of agents is at the stage %q, which this program does not know", o.Stage)
}

// check makes sure, before anything is changed, that there is a way back, and that
// the new program runs here at all: units would not start without.
func (e Exchange) check(ctx context.Context, o Order) error {
	sum, err := Sum(e.Former)
	if err != nil {
		return fmt.Errorf("there would be no way back: %w", err)
	}
	if sum != o.From {
		return fmt.Errorf("there would be no way back: %s has sha256 %s, expected %s", e.Former, sum, o.From)
	}
	if err := e.lay(filepath.Join(e.Candidates, o.To), o.To); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tryDeadline, fmt.Errorf("not within %s", tryDeadline))
	defer cancel()
	if err := e.Try(ctx, e.Part); err != nil {
		return errors.Join(fmt.Errorf("it does not run on this server: %w", err), os.Remove(e.Part))
	}
	return nil
}

// place puts a program in the agent's place. fetch.env is first, while the program
// lies whole where muster-fetch finds it: a boot between the two finishes this, without
// a mirror.
func (e Exchange) place(from, sum, env string) error {
	if err := e.lay(from, sum); err != nil {
		return err
	}
	if err := e.Write(e.Env, []byte(env), 0o644); err != nil {
		return err
	}
	if err := os.Rename(e.Part, e.Program); err != nil {
		return err
	}
	return syncDir(filepath.Dir(e.Program))
}

// lay copies a program to where it only lacks its name, if it is the one it should be.
func (e Exchange) lay(from, sum string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("laying the agent: %w", err)
	}
	defer in.Close()
	_ = os.Remove(e.Part) // one that runs cannot be written to
	out, err := os.OpenFile(e.Part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return fmt.Errorf("laying the agent: %w", err)
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, hash), in)
	if err == nil {
		err = out.Chmod(0o755)
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("laying the agent: %w", err), os.Remove(e.Part))
	}
	if have := hex.EncodeToString(hash.Sum(nil)); have != sum {
		return errors.Join(fmt.Errorf("%s has sha256 %s, expected %s: the disk changed it", from, have, sum), os.Remove(e.Part))
	}
	return nil
}

// trial starts the new agent and waits until it is ready, and stays so.
func (e Exchange) trial(ctx context.Context, sum string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("it was not ready within %s", deadline))
	defer cancel()
	if err := e.Units.RestartAgent(ctx); err != nil {
		return err
	}
	runs := map[string]bool{}
	var since time.Time
	why := errors.New("it did not answer")
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		run, failed, err := e.Units.Run(ctx)
		if err == nil && !runs[run] {
			runs[run], since = true, time.Time{}
		}
		if failed {
			return errors.New("it ended, and systemd does not start it again; see journalctl -u muster")
		}
		if len(runs) > crashes {
			return fmt.Errorf("it ended %d times; see journalctl -u muster", len(runs)-1)
		}
		have, ready, err := e.Agent(ctx)
		switch {
		case err != nil:
			since, why = time.Time{}, err
		case have != sum:
			since, why = time.Time{}, fmt.Errorf("the agent that answers has sha256 %s", have)
		case !ready:
			since, why = time.Time{}, errors.New("this server is not ready under it")
		case since.IsZero():
			since = e.Now()
		case e.Now().Sub(since) >= steady:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), why)
		case <-tick.C:
		}
	}
}

// back lays the former program and starts from it whatever the new one may have been
// started for. What then fails is not the exchange's: it is over.
func (e Exchange) back(ctx context.Context, o Order) (Stage, error) {
	if err := e.place(e.Former, o.From, o.FormerEnv); err != nil {
		return Back, fmt.Errorf("going back to the former agent: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not within %s", deadline))
	defer cancel()
	if err := e.Units.RestartAgent(ctx); err != nil {
		e.Log.Error("the former agent does not start", "error", err)
	}
	if err := e.Units.RestartDirectory(ctx); err != nil {
		e.Log.Error("the directory does not start from the former program", "error", err)
	}
	return Returned, nil
}

// Sum is the sha256 of a program, in hex.
func Sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
