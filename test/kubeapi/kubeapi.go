// Package kubeapi stands in for a Kubernetes API server in tests, as far as objects
// go: it keeps them with resource versions and refuses a write that is based on
// another version, as the real one does.
package kubeapi

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Server is an http.Handler. The zero Server is empty.
type Server struct {
	mu      sync.Mutex
	objects map[string]object // by path
	version int
}

type object map[string]any

// Set lays an object at a path, whatever is there.
func (s *Server) Set(path, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var o object
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	s.store(path, o)
}

// Get returns the object at a path as JSON, or "".
func (s *Server) Get(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[path] == nil {
		return ""
	}
	data, err := json.Marshal(s.objects[path])
	if err != nil {
		panic(err)
	}
	return string(data)
}

// store gives the object the next resource version.
func (s *Server) store(path string, o object) {
	if s.objects == nil {
		s.objects = map[string]object{}
	}
	s.version++
	meta, ok := o["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		o["metadata"] = meta
	}
	meta["resourceVersion"] = strconv.Itoa(s.version)
	s.objects[path] = o
}

// ServeHTTP answers GET of an object or a collection, POST to a collection, PUT and
// merge PATCH of an object.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sent object
	if r.Method != http.MethodGet {
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(data, &sent)
		}
		if err != nil {
			fail(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	path := r.URL.Path
	if r.Method == http.MethodPost {
		path += "/" + str(sent, "metadata", "name")
	}
	there := s.objects[path]
	switch {
	case r.Method == http.MethodPost && there != nil:
		fail(w, http.StatusConflict, path+" already exists")
		return
	case r.Method == http.MethodGet && there == nil && s.lists(path):
		reply(w, object{"items": s.items(path)})
		return
	case r.Method != http.MethodPost && there == nil:
		fail(w, http.StatusNotFound, path+" not found")
		return
	case r.Method == http.MethodPut || r.Method == http.MethodPatch:
		base := str(sent, "metadata", "resourceVersion")
		if base != "" && base != str(there, "metadata", "resourceVersion") {
			fail(w, http.StatusConflict, "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again")
			return
		}
		if r.Method == http.MethodPatch {
			if got := r.Header.Get("Content-Type"); got != "application/merge-patch+json" {
				fail(w, http.StatusUnsupportedMediaType, "the body of the request was in an unknown format: "+got)
				return
			}
			sent = merge(there, sent)
		}
	}
	if r.Method != http.MethodGet {
		s.store(path, sent)
	}
	reply(w, s.objects[path])
}

// lists says whether a path is a collection.
func (s *Server) lists(path string) bool {
	return strings.HasSuffix(path, "/nodes") || len(s.items(path)) > 0
}

func (s *Server) items(path string) []object {
	items := []object{}
	for _, at := range slices.Sorted(maps.Keys(s.objects)) {
		if strings.HasPrefix(at, path+"/") {
			items = append(items, s.objects[at])
		}
	}
	return items
}

// merge is RFC 7386.
func merge(into, patch map[string]any) map[string]any {
	out := maps.Clone(into)
	if out == nil {
		out = map[string]any{}
	}
	for key, value := range patch {
		deeper, isObject := value.(map[string]any)
		switch {
		case value == nil:
			delete(out, key)
		case isObject:
			was, _ := out[key].(map[string]any)
			out[key] = merge(was, deeper)
		default:
			out[key] = value
		}
	}
	return out
}

func str(o map[string]any, keys ...string) string {
	for _, key := range keys[:len(keys)-1] {
		o, _ = o[key].(map[string]any)
	}
	text, _ := o[keys[len(keys)-1]].(string)
	return text
}

func reply(w http.ResponseWriter, o any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(o); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func fail(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","code":%d,"message":%q}`, code, message)
}
