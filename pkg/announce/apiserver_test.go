package announce

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// apiProcess is the API server of a server: a process of its own, so that it can
// be killed and stopped while the speaker lives.
type apiProcess struct {
	dir    string
	listen netip.AddrPort

	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Scanner
}

// start runs it and returns when it listens.
func (p *apiProcess) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asAPIServer+"="+p.dir, asServer+"=", "LISTEN="+p.listen.String())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.answers, p.cmd = bufio.NewScanner(stdout), cmd
	if err := cmd.Start(); err != nil {
		return err
	}
	return p.answer()
}

func (p *apiProcess) answer() error {
	if !p.answers.Scan() || p.answers.Text() != "ok" {
		return fmt.Errorf("the API server answered %q", p.answers.Text())
	}
	return nil
}

// command carries out: start, kill, stop, cont, or what the process understands.
func (p *apiProcess) command(line string) error {
	switch line {
	case "start":
		return p.start()
	case "kill":
		if err := p.cmd.Process.Kill(); err != nil {
			return err
		}
		_ = p.cmd.Wait() // says that it was killed
		return nil
	case "stop":
		return p.cmd.Process.Signal(syscall.SIGSTOP)
	case "cont":
		return p.cmd.Process.Signal(syscall.SIGCONT)
	}
	if _, err := fmt.Fprintln(p.stdin, line); err != nil {
		return err
	}
	return p.answer()
}

// makeAuthority leaves the cluster's CA and the API server's certificate and key
// in dir.
func makeAuthority(dir string, private netip.Addr) error {
	ca, cert, err := authority(private)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600),
		os.WriteFile(filepath.Join(dir, "apiserver.crt"), block("CERTIFICATE", cert.Certificate[0]), 0o600),
		os.WriteFile(filepath.Join(dir, "apiserver.key"), block("PRIVATE KEY", key), 0o600))
}

// apiMain serves /readyz and does as it is told on standard input: "health N" is
// the status of all checks but etcd's, "etcd ok|failed|blocks" is etcd's.
func apiMain(dir string) error {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key"))
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", os.Getenv("LISTEN"), &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	state := apiServer{etcd: "ok", other: http.StatusOK}
	failed := make(chan error, 1)
	go func() {
		failed <- http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			now := state
			mu.Unlock()
			now.ServeHTTP(w, r)
		}))
	}()
	fmt.Println("ok")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, rest, _ := strings.Cut(in.Text(), " ")
		mu.Lock()
		switch word {
		case "health":
			_, err = fmt.Sscan(rest, &state.other)
		case "etcd":
			state.etcd = rest
		default:
			err = fmt.Errorf("unknown command %q", in.Text())
		}
		mu.Unlock()
		if err != nil {
			return err
		}
		fmt.Println("ok")
	}
	return <-failed
}
