package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a problem stops the file from being used.
type Severity string

// Severities.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Problem is one thing that is wrong with a cluster file, at its place.
type Problem struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1
	Col      int      `json:"col"`    // from 1, in characters
	EndCol   int      `json:"endCol"` // of the character after what is wrong
	Path     string   `json:"path"`   // such as spec.servers.expect; empty for the whole file
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"` // what to do
	Severity Severity `json:"severity"`
	excerpt  string
}

// String is file:line:col: path: message (hint), the form that editors jump to;
// a warning says so after its place.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Col)
	if p.Severity == SeverityWarning {
		b.WriteString("warning: ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Err makes one error of the problems that are errors, nil when there are none.
func Err(problems []Problem) error {
	var errs []error
	for _, p := range problems {
		if p.Severity == SeverityError {
			errs = append(errs, errors.New(p.String()))
		}
	}
	return errors.Join(errs...)
}

// place is where something stands in a file.
type place struct{ line, col int }

// report collects problems and knows where each path stands.
type report struct {
	file     string
	problems []Problem
	values   map[string]place // of a path's value
	keys     map[string]place // of a path's key
	broken   map[string]bool  // paths whose value was refused already
}

// errorf reports an error at the value of path.
func (r *report) errorf(path, hint, format string, args ...any) {
	r.add(SeverityError, r.place(path, r.values), path, hint, fmt.Sprintf(format, args...))
}

// warnf reports a warning at the value of path.
func (r *report) warnf(path, hint, format string, args ...any) {
	r.add(SeverityWarning, r.place(path, r.values), path, hint, fmt.Sprintf(format, args...))
}

// missing reports that path is not there, at the key of what should hold it.
func (r *report) missing(path, hint string) {
	at := r.place(parent(path), r.keys)
	if own, ok := r.keys[path]; ok { // the key stands there without a value
		at = own
	}
	r.add(SeverityError, at, path, hint, "is missing")
}

// add appends a problem unless path was refused already: what follows from a
// value that could not be read is noise.
func (r *report) add(s Severity, at place, path, hint, message string) {
	if !r.fine(path) {
		return
	}
	r.problems = append(r.problems, Problem{
		File: r.file, Line: at.line, Col: at.col, Path: path, Message: message, Hint: hint, Severity: s,
	})
}

// fine says that none of the paths, nor anything above one, was refused.
func (r *report) fine(paths ...string) bool {
	for _, p := range paths {
		for ; ; p = parent(p) {
			if r.broken[p] {
				return false
			}
			if p == "" {
				break
			}
		}
	}
	return true
}

// place finds path, or the nearest thing above it that stands in the file.
func (r *report) place(path string, in map[string]place) place {
	for ; path != ""; path = parent(path) {
		if at, ok := in[path]; ok {
			return at
		}
	}
	return place{1, 1}
}

// sorted puts problems in the order of the file, the same in every run.
func (r *report) sorted() []Problem {
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), strings.Compare(a.Path, b.Path), strings.Compare(a.Message, b.Message))
	})
	return r.problems
}

// parent cuts the last step off a path: a.b[1] -> a.b -> a -> "".
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// join makes the path of a key below path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
