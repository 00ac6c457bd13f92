package userdata

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// SizeError says that user-data is larger than its platform takes.
type SizeError struct {
	Size, Limit int            // bytes
	Parts       map[string]int // bytes by path of the file
}

// Error names the size, the limit and the biggest parts.
func (e *SizeError) Error() string {
	paths := slices.SortedFunc(maps.Keys(e.Parts), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Parts[b], e.Parts[a]), strings.Compare(a, b))
	})
	var biggest []string
	for _, p := range paths[:min(3, len(paths))] {
		biggest = append(biggest, fmt.Sprintf("%s %d", p, e.Parts[p]))
	}
	return fmt.Sprintf("the user-data has %d bytes, %d more than the %d that every platform takes; its biggest parts in bytes: %s. Shorten the cluster file (spec.static, kubelet, containerd.extra) or render with a limit that your platform is known to take",
		e.Size, e.Size-e.Limit, e.Limit, strings.Join(biggest, ", "))
}
