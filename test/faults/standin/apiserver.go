package main

import (
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// apiServer keeps objects of any kind by their path, with the meaning of
// resourceVersion.
type apiServer struct {
	etcd *etcd
	ca   authority
}

// object is a Kubernetes object as far as every kind is alike.
type object = map[string]any

// failure is an answer other than 2xx.
type failure struct {
	code    int
	message string
}

func (f failure) Error() string { return f.message }

const csrPath = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/livez", "/readyz", "/healthz":
		if err := s.etcd.quorum(); err != nil {
			http.Error(w, "[-]etcd failed: "+err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, "ok")
		return
	}
	reply, err := s.handle(r)
	var f failure
	switch {
	case errors.As(err, &f):
	case errors.Is(err, errNoQuorum):
		f = failure{http.StatusServiceUnavailable, err.Error()}
	case err != nil:
		f = failure{http.StatusInternalServerError, err.Error()}
	default:
		code := http.StatusOK
		if r.Method == http.MethodPost {
			code = http.StatusCreated
		}
		answer(w, code, reply)
		return
	}
	answer(w, f.code, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": f.code, "message": f.message})
}

func (s *apiServer) handle(r *http.Request) (reply any, err error) {
	if err := s.authenticate(r); err != nil {
		return nil, err
	}
	var body object
	if r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return nil, failure{http.StatusBadRequest, err.Error()}
		}
	}
	if r.URL.Path == csrPath && r.Method == http.MethodPost {
		return s.signRequest(body)
	}
	err = s.etcd.do(func(db *database) (err error) {
		reply, err = act(db, r.Method, r.URL.Path, body)
		return err
	})
	return reply, err
}

// authenticate takes a certificate of the cluster CA, which TLS has verified, or
// the token of a live bootstrap secret.
func (s *apiServer) authenticate(r *http.Request) error {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	id, secret, two := strings.Cut(token, ".")
	if !ok || !two {
		return failure{http.StatusForbidden, "system:anonymous may ask for health only"}
	}
	return s.etcd.do(func(db *database) error {
		var stored struct {
			StringData map[string]string `json:"stringData"`
		}
		raw := db.Objects["/api/v1/namespaces/kube-system/secrets/bootstrap-token-"+id]
		if raw == nil || json.Unmarshal(raw, &stored) != nil {
			return failure{http.StatusUnauthorized, "there is no such bootstrap token"}
		}
		expires, err := time.Parse(time.RFC3339, stored.StringData["expiration"])
		if err != nil || time.Now().After(expires) || subtle.ConstantTimeCompare([]byte(secret), []byte(stored.StringData["token-secret"])) != 1 {
			return failure{http.StatusUnauthorized, "the bootstrap token is wrong or has expired"}
		}
		return nil
	})
}

// signRequest approves and signs at once what a kubelet asks for.
func (s *apiServer) signRequest(body object) (any, error) {
	spec, _ := body["spec"].(object)
	text, _ := spec["request"].(string)
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, failure{http.StatusBadRequest, err.Error()}
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, failure{http.StatusBadRequest, "the request is no PEM"}
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil || !strings.HasPrefix(request.Subject.CommonName, "system:node:") {
		return nil, failure{http.StatusBadRequest, "the request is none of a kubelet"}
	}
	if err := s.etcd.quorum(); err != nil {
		return nil, err
	}
	cert, err := s.ca.sign(subject{name: request.Subject.CommonName, group: "system:nodes"}, request.PublicKey)
	body["status"] = object{"certificate": base64.StdEncoding.EncodeToString(cert)}
	return body, err
}

// act carries one request out on the objects.
func act(db *database, method, at string, body object) (any, error) {
	stored, found := db.Objects[at]
	switch {
	case method == http.MethodPost:
		meta, _ := body["metadata"].(object)
		name, _ := meta["name"].(string)
		if name == "" {
			return nil, failure{http.StatusUnprocessableEntity, "metadata.name is missing"}
		}
		at = path.Join(at, name)
		if _, there := db.Objects[at]; there {
			return nil, failure{http.StatusConflict, at + " already exists"}
		}
		return put(db, at, body)
	case method == http.MethodGet && !found && isCollection(at):
		return list(db, at), nil
	case !found:
		return nil, failure{http.StatusNotFound, at + " not found"}
	case method == http.MethodGet:
		return stored, nil
	case method == http.MethodDelete:
		delete(db.Objects, at)
		db.Revision++
		return stored, nil
	}
	var old object
	if err := json.Unmarshal(stored, &old); err != nil {
		return nil, err
	}
	if method == http.MethodPatch {
		body = mergePatch(old, body)
	} else if want := version(body); want != "" && want != version(old) {
		return nil, failure{http.StatusConflict, "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again"}
	}
	return put(db, at, body)
}

func put(db *database, at string, o object) (any, error) {
	db.Revision++
	meta, ok := o["metadata"].(object)
	if !ok {
		meta = object{}
		o["metadata"] = meta
	}
	meta["resourceVersion"] = strconv.FormatUint(db.Revision, 10)
	if meta["uid"] == nil {
		meta["uid"] = newID()
	}
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if db.Objects == nil {
		db.Objects = map[string]json.RawMessage{}
	}
	db.Objects[at] = raw
	return json.RawMessage(raw), nil
}

func version(o object) string {
	meta, _ := o["metadata"].(object)
	v, _ := meta["resourceVersion"].(string)
	return v
}

// isCollection says whether a path ends in a kind: /api/v1/nodes,
// /apis/GROUP/v1/namespaces/NS/leases.
func isCollection(at string) bool {
	elements := strings.Split(strings.Trim(at, "/"), "/")
	if elements[0] == "apis" {
		elements = elements[1:]
	}
	return len(elements)%2 == 1
}

func list(db *database, at string) any {
	items := []json.RawMessage{}
	for _, key := range slices.Sorted(maps.Keys(db.Objects)) {
		if path.Dir(key) == at {
			items = append(items, db.Objects[key])
		}
	}
	return object{"kind": "List", "metadata": object{"resourceVersion": strconv.FormatUint(db.Revision, 10)}, "items": items}
}

// mergePatch is RFC 7396.
func mergePatch(to, patch object) object {
	for key, v := range patch {
		sub, isMap := v.(object)
		have, both := to[key].(object)
		switch {
		case v == nil:
			delete(to, key)
		case isMap && both:
			to[key] = mergePatch(have, sub)
		default:
			to[key] = v
		}
	}
	return to
}
