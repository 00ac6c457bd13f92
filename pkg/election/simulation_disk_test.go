package election

// disk models the directory of the two state files as pkg/durable uses it, with
// a page cache before it: write a temporary file, sync it, rename it, sync the
// directory. It is a value; a copy of it is an image of the disk.
type disk struct {
	cache [2]file // what a running system sees
	plate [2]file // what survives power loss
	// lazy is the mutant that does not sync; behind holds what waits for the
	// kernel to write it back.
	lazy   bool
	behind [][2]file
}

// file is a state as it was written.
type file struct {
	there bool
	state State
	torn  bool       // only the beginning of its bytes is left
	read  *StateFile // what the codec made of the bytes; they never change
}

// stage is how far a write came before the machine died.
type stage int

const (
	torn      stage = iota // the temporary file is cut off
	unrenamed              // it is whole and not renamed
	renamed                // it is renamed and the directory not synced
	synced
	stages
)

func (s stage) String() string {
	return [...]string{"the temporary file is torn", "the temporary file is not renamed", "the directory is not synced", "it survives"}[s]
}

// write replaces a file up to a stage.
func (d *disk) write(s State, upTo stage) {
	if upTo < renamed {
		return // temporary files are removed at the next start and never read
	}
	d.cache[StateFileOf(s.Seq)] = file{there: true, state: s}
	switch {
	case d.lazy:
		d.behind = append(d.behind, d.cache)
	case upTo == synced:
		d.plate = d.cache
	}
}

// powerLoss drops what was not synced, or not: a rename may have reached the
// disk by itself.
func (d *disk) powerLoss(w *sim) {
	switch {
	case d.lazy:
		if n := w.rnd.IntN(len(d.behind) + 1); n > 0 {
			d.plate = d.behind[n-1]
		}
		d.behind = nil
	case w.rnd.IntN(2) == 0:
		d.plate = d.cache
	}
	d.cache = d.plate
}

// mount begins a run of the agent: durable.Open syncs the directory, so that a
// rename which a dead agent did not sync survives before it is believed.
func (d *disk) mount() {
	if !d.lazy {
		d.plate = d.cache
	}
}

var fileNames = [2]string{"state.a", "state.b"}

// files reads both through the real codec.
func (d *disk) files() (out [2]StateFile) {
	for i := range d.cache {
		f := &d.cache[i]
		if !f.there {
			continue
		}
		if f.read == nil {
			r := f.decode(fileNames[i])
			f.read = &r
		}
		out[i] = *f.read
	}
	return out
}

func (f *file) decode(name string) StateFile {
	data, err := EncodeState(f.state)
	if err != nil {
		return StateFile{Path: name, There: true, Err: err}
	}
	if f.torn {
		data = data[:int(f.state.Seq*31)%len(data)]
	}
	return ReadStateFile(name, data)
}

func (d *disk) any() bool { return d.cache[0].there || d.cache[1].there }

// removal is the order in which a former life is discarded.
func (d *disk) removal() []int {
	var out []int
	for _, f := range RemovalOrder(d.files()) {
		for i, name := range fileNames {
			if f.There && f.Path == name {
				out = append(out, i)
			}
		}
	}
	return out
}

// remove takes a file away and syncs the directory.
func (d *disk) remove(i int) {
	d.cache[i] = file{}
	if !d.lazy {
		d.plate = d.cache
	}
}

// damage cuts the newest file off.
func (d *disk) damage() {
	at := StateFileOf(d.seq())
	d.cache[at].torn, d.cache[at].read = true, nil
	d.plate = d.cache
}

// seq is the number of the newest write.
func (d *disk) seq() uint64 { return max(d.cache[0].state.Seq, d.cache[1].state.Seq) }
