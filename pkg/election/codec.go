package election

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Limits of the fence. They are far above what a formation needs and keep a
// damaged or hostile length from filling memory.
const (
	// MaxStateSize bounds an encoded state, in bytes.
	MaxStateSize = 1 << 20
	// MaxMessageSize bounds an encoded message, in bytes.
	MaxMessageSize = 512 << 10

	maxRefusal = 1024    // bytes of a sentence
	maxField   = 256     // bytes in any string
	maxEpochs  = 256     // epochs: after so many ABDICATEs no leader is deposed any more
	maxRound   = 1 << 53 // rounds: what JSON numbers carry exactly everywhere
	stateHead  = "muster fence state v2 crc32c=%08x bytes=%d\n"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeState writes a state as its file holds it: one line with version,
// CRC32C and length of what follows, then JSON. docs/formats.md describes it.
func EncodeState(s State) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the fence's state: %w", err)
	}
	data := frame(append(body, '\n'))
	if len(data) > MaxStateSize {
		return nil, fmt.Errorf("encode the fence's state: %d bytes, expected at most %d", len(data), MaxStateSize)
	}
	return data, nil
}

// frame puts the first line before a body.
func frame(body []byte) []byte {
	return append(fmt.Appendf(nil, stateHead, crc32.Checksum(body, castagnoli), len(body)), body...)
}

// DecodeState reads what EncodeState wrote. An error says what is wrong in a
// sentence; there is no partial result, because half a memory is none.
func DecodeState(data []byte) (State, error) {
	if len(data) > MaxStateSize {
		return State{}, fmt.Errorf("the state is %d bytes long, expected at most %d", len(data), MaxStateSize)
	}
	head, body, found := bytes.Cut(data, []byte("\n"))
	if !found {
		return State{}, fmt.Errorf("the state is cut off in its first line (%d bytes)", len(data))
	}
	var sum uint32
	var size int
	if _, err := fmt.Sscanf(string(head)+"\n", stateHead, &sum, &size); err != nil || fmt.Sprintf(stateHead, sum, size) != string(head)+"\n" {
		return State{}, fmt.Errorf("the state begins with %.60q, expected %q: damaged, or written by another version", head, "muster fence state v2 crc32c=…")
	}
	if len(body) != size {
		return State{}, fmt.Errorf("the state has %d bytes after its first line, expected %d: torn or damaged", len(body), size)
	}
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return State{}, fmt.Errorf("the state's CRC32C is %08x, expected %08x: damaged", got, sum)
	}
	var s State
	if err := decodeStrict(body, &s); err != nil {
		return State{}, fmt.Errorf("the state is no valid JSON for this version: %w", err)
	}
	if err := s.check(); err != nil {
		return State{}, fmt.Errorf("the state contradicts itself: %w", err)
	}
	return s, nil
}

func (s State) check() error {
	if err := bounded(s.SpecID, s.Config, s.Inst, s.Hardware.HW, s.Sealed.CAHash, s.Sealed.Endpoint); err != nil {
		return err
	}
	if s.Seq == 0 || s.Inst == "" || s.Hardware.HW == "" || s.SpecID == "" {
		return errors.New("seq, specID, inst or hw is missing")
	}
	decided := s.Decided()
	if err := checkPrefix(decided); err != nil {
		return err
	}
	if len(s.Slots) > len(decided)+1 {
		return fmt.Errorf("%d slots are used though only %d are decided", len(s.Slots), len(decided))
	}
	for i, slot := range s.Slots {
		if slot.Value != (Value{}) {
			if err := slot.Value.fits(i); err != nil {
				return err
			}
		}
		if slot.Decided != (Value{}) && (slot.Promised != (Ballot{}) || slot.Value != (Value{})) || slot.Voted && slot.Decided == (Value{}) {
			return fmt.Errorf("slot %d mixes a decision with a vote under way", i)
		}
		if (slot.Value == Value{}) != (slot.Accepted == Ballot{}) || slot.Promised.Less(slot.Accepted) {
			return fmt.Errorf("slot %d accepted ballot %d with promise %d and value %q", i, slot.Accepted.Round, slot.Promised.Round, slot.Value.Kind)
		}
		if err := slot.Promised.check(); err != nil {
			return err
		}
	}
	if s.Sealed.Closed && s.Sealed.CAHash == "" {
		return errors.New("closed, but sealed with no CA")
	}
	if l, _, ok := s.Leader(); s.GoMarker && (!ok || !s.Gone() || l.Inst != s.Inst) {
		return errors.New("the GO marker is set though GO was not decided for this instance")
	}
	return nil
}

// checkPrefix says whether values may stand in slots 0, 1, 2, … in this order.
func checkPrefix(values []Value) error {
	if len(values) > 2*maxEpochs {
		return fmt.Errorf("%d slots are decided, expected at most %d", len(values), 2*maxEpochs)
	}
	for i, v := range values {
		if err := v.fits(i); err != nil {
			return err
		}
		if v.Kind != Lead {
			continue
		}
		if dead := holderBefore(values, i); v.Supersedes != dead {
			return fmt.Errorf("slot %d supersedes hardware %.40q, expected %.40q, which held GO in the slot before", i, v.Supersedes, dead)
		}
		for j := 1; j < i; j += 2 {
			if values[j].Kind == Go && values[j-1].Leader.HW == v.Leader.HW {
				return fmt.Errorf("slot %d is led by hardware %.40q, whose GO in slot %d was superseded", i, v.Leader.HW, j)
			}
		}
	}
	return nil
}

// holderBefore is the hardware that held GO in the slot before, if any.
func holderBefore(values []Value, slot int) string {
	if slot < 2 || values[slot-1].Kind != Go {
		return ""
	}
	return values[slot-2].Leader.HW
}

func (b Ballot) check() error {
	if b.Round > maxRound || len(b.Inst) > maxField || len(b.Run) > maxField || (b.Round == 0) != (b.Inst == "") || b.Round == 0 && b.Run != "" {
		return fmt.Errorf("ballot (%d, %.40q, %.40q) is not valid", b.Round, b.Inst, b.Run)
	}
	return nil
}

// EncodeMessage writes a message as JSON.
func EncodeMessage(m Message) ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a %s message of the fence: %w", m.Kind, err)
	}
	if len(data) > MaxMessageSize {
		return nil, fmt.Errorf("encode a %s message of the fence: %d bytes, expected at most %d", m.Kind, len(data), MaxMessageSize)
	}
	return data, nil
}

// DecodeMessage reads a message strictly: unknown fields, another version and
// values that no slot may hold are errors.
func DecodeMessage(data []byte) (Message, error) {
	if len(data) > MaxMessageSize {
		return Message{}, fmt.Errorf("a message of the fence is %d bytes long, expected at most %d", len(data), MaxMessageSize)
	}
	// The version is read first, so that a newer agent is named as such and not
	// as one that sends unknown fields.
	var version struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return Message{}, fmt.Errorf("a message of the fence is no valid JSON: %w", err)
	}
	if version.V != MessageVersion {
		return Message{}, fmt.Errorf("a message of the fence has version %d, expected %d: the servers run different agents", version.V, MessageVersion)
	}
	var m Message
	if err := decodeStrict(data, &m); err != nil {
		return Message{}, fmt.Errorf("a message of the fence is no valid JSON for version %d: %w", MessageVersion, err)
	}
	if err := m.check(); err != nil {
		return Message{}, fmt.Errorf("a %.20q message of the fence: %w", m.Kind, err)
	}
	return m, nil
}

func (m Message) check() error {
	switch m.Kind {
	case Prepare, Promise, Nack, Accept, Accepted, Tidings, Ask, Tell, Stand, Stands:
	default:
		return errors.New("of unknown kind")
	}
	if err := bounded(m.SpecID, m.Config, m.Name, m.Nonce, m.Sealed.CAHash, m.Sealed.Endpoint); err != nil {
		return err
	}
	if len(m.Refusal) > maxRefusal {
		return fmt.Errorf("a refusal of %d bytes, expected at most %d", len(m.Refusal), maxRefusal)
	}
	if m.Slot < 0 || m.Slot > 2*maxEpochs {
		return fmt.Errorf("slot %d, expected 0 to %d", m.Slot, 2*maxEpochs)
	}
	for _, b := range []Ballot{m.Ballot, m.Promised, m.Accepted} {
		if err := b.check(); err != nil {
			return err
		}
	}
	if (m.Sealed == Sealed{}) != (m.Sealed.CAHash == "") {
		return errors.New("sealed without a CA hash")
	}
	if m.Value != (Value{}) {
		if err := m.Value.fits(m.Slot); err != nil {
			return err
		}
	}
	if m.Kind == Accept && m.Value == (Value{}) || m.Kind == Promise && (m.Value == Value{}) != (m.Accepted == Ballot{}) {
		return errors.New("ballot and value do not belong together")
	}
	if (m.Kind == Prepare || m.Kind == Promise || m.Kind == Nack || m.Kind == Accept || m.Kind == Accepted) && m.Ballot.Round == 0 {
		return errors.New("without a ballot")
	}
	return checkPrefix(m.Decided)
}

func bounded(fields ...string) error {
	for _, f := range fields {
		if len(f) > maxField {
			return fmt.Errorf("the field %.20q… is %d bytes long, expected at most %d", f, len(f), maxField)
		}
	}
	return nil
}

func decodeStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the end")
	}
	return nil
}
