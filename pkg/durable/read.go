package durable

// readTries bounds how often Read looks again.
const readTries = 5

// Read is Load for another process than the one that votes: it makes, removes
// and proves nothing.
//
// Each slot is read whole or not at all, but two writes may come between the two
// reads, and then the numbers are no neighbours. What looks damaged is therefore
// read again; a write takes two syncs, so that does not happen twice.
func Read(dir string) (found Found, err error) {
	for range readTries {
		s := Store{dir: dir}
		if found, err = s.Load(); err != nil || found.Origin != Damaged {
			return found, err
		}
	}
	return found, nil
}
