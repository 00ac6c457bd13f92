//go:build race

package election

// raced says that the race detector is on: the checker has one goroutine, and
// would take ten times as long.
const raced = true
