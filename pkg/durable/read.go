package durable

// Read is Load for another process than the one that votes: it makes, removes
// and proves nothing. A write that happens meanwhile is seen or not, as a whole.
func Read(dir string) (Found, error) {
	s := Store{dir: dir}
	return s.Load()
}
