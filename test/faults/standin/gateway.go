package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
)

// gateway is etcd's JSON gateway (etcd 3.5 to 3.7), as far as members go.
func (e *etcd) gateway() http.Handler {
	mux := http.NewServeMux()
	serve := func(path string, act func(*database, memberRequest) (etcdMember, error)) {
		mux.HandleFunc("POST /v3/cluster/member/"+path, func(w http.ResponseWriter, r *http.Request) {
			var request memberRequest
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			reply := memberReply{}
			reply.Header.ClusterID = e.Cluster
			err := e.do(func(db *database) (err error) {
				m, err := act(db, request)
				if m.ID != "" {
					reply.Member = &m
				}
				reply.Members = db.Members
				return err
			})
			if err != nil {
				code := http.StatusBadRequest
				if errors.Is(err, errNoQuorum) {
					code = http.StatusServiceUnavailable
				}
				answer(w, code, map[string]string{"error": err.Error(), "message": err.Error()})
				return
			}
			answer(w, http.StatusOK, reply)
		})
	}
	serve("list", func(*database, memberRequest) (etcdMember, error) { return etcdMember{}, nil })
	serve("add", addMember)
	serve("promote", promoteMember)
	serve("remove", removeMember)
	return mux
}

type memberRequest struct {
	ID        string   `json:"ID"`
	PeerURLs  []string `json:"peerURLs"`
	IsLearner bool     `json:"isLearner"`
}

type memberReply struct {
	Header struct {
		ClusterID string `json:"cluster_id"`
	} `json:"header"`
	Member  *etcdMember  `json:"member,omitempty"`
	Members []etcdMember `json:"members"`
}

func addMember(db *database, r memberRequest) (etcdMember, error) {
	for _, m := range db.Members {
		if slices.Equal(m.PeerURLs, r.PeerURLs) {
			return etcdMember{}, errors.New("etcdserver: Peer URLs already exists")
		}
		if m.IsLearner && r.IsLearner {
			return etcdMember{}, errors.New("etcdserver: too many learner members in cluster")
		}
	}
	m := etcdMember{ID: newID(), PeerURLs: r.PeerURLs, IsLearner: r.IsLearner}
	db.Members = append(db.Members, m)
	return m, nil
}

func promoteMember(db *database, r memberRequest) (etcdMember, error) {
	for i, m := range db.Members {
		switch {
		case m.ID != r.ID:
			continue
		case !m.IsLearner:
			return etcdMember{}, errors.New("etcdserver: can only promote a learner member")
		case m.Name == "" || !reaches(m.address()):
			return etcdMember{}, errors.New("etcdserver: can only promote a learner member which is in sync with leader")
		}
		db.Members[i].IsLearner = false
		return db.Members[i], nil
	}
	return etcdMember{}, errors.New("etcdserver: member not found")
}

func removeMember(db *database, r memberRequest) (etcdMember, error) {
	left := slices.DeleteFunc(slices.Clone(db.Members), func(m etcdMember) bool { return m.ID == r.ID })
	if len(left) == len(db.Members) {
		return etcdMember{}, errors.New("etcdserver: member not found")
	}
	db.Members = left
	return etcdMember{}, nil
}

// answer writes a value as JSON.
func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the caller hung up
}
