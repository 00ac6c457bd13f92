package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mustermetal/muster/pkg/cluster"
)

const (
	testSecret = cluster.Secret("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	testSpec   = "5b0c0000000000000000000000000001"
	testHW     = "0123456789abcdef0123456789abcdef"
)

func testKeys(t testing.TB) Keys {
	t.Helper()
	keys, err := Derive(testSecret, testSpec)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func enrolment(t testing.TB) *Authority {
	t.Helper()
	a, err := EnrolmentAuthority(testKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func subject() Subject {
	return Subject{Inst: NewInst(), HW: testHW, Name: "cp1", IPs: []netip.Addr{netip.MustParseAddr("10.99.14.9"), netip.MustParseAddr("fd00::9")}}
}

// The derived values are an interface between releases: servers of two versions
// must enrol with each other.
func TestDeriveIsStable(t *testing.T) {
	keys := testKeys(t)
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:8]) }
	got := []string{sum(keys.Gossip()), sum(keys.Seal()), sum(enrolment(t).Certificate().Raw), enrolment(t).Hash()}
	want := []string{"8817c6837ea725d5", "f6d884d53ea1c6db", "8f1539ce38ec2405", "sha256:8b47f6c11228ad0af5152777ac275efab6bc57af039a8da5933a0bf4554bfeb9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("derived values changed (-want +got):\n%s", diff)
	}
}

func TestDerive(t *testing.T) {
	keys := testKeys(t)
	other, err := Derive(testSecret, testSpec+"x")
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2][]byte{
		{keys.Gossip(), other.Gossip()}, {keys.Seal(), other.Seal()}, {keys.seed, other.seed},
		{keys.Gossip(), keys.Seal()}, {keys.Gossip(), keys.seed},
	} {
		if bytes.Equal(pair[0], pair[1]) || len(pair[0]) != 32 {
			t.Errorf("keys meet or have the wrong length: %x", pair)
		}
	}
	if _, err := Derive("short", testSpec); err == nil || !strings.Contains(err.Error(), "has 5 characters") || strings.Contains(err.Error(), "short") {
		t.Errorf("short secret: %v", err)
	}
	if _, err := Derive(testSecret, ""); err == nil {
		t.Error("an empty spec id was accepted")
	}
	for _, shown := range []string{fmt.Sprint(keys), fmt.Sprintf("%+v %#v", keys, keys), keys.LogValue().String()} {
		if strings.Contains(shown, hex.EncodeToString(keys.gossip)) || strings.Contains(shown, "seed") || !strings.Contains(shown, "redacted") {
			t.Errorf("keys show themselves: %s", shown)
		}
	}
}

func TestEnrolmentAuthorityIsTheSameEverywhere(t *testing.T) {
	if !bytes.Equal(enrolment(t).Certificate().Raw, enrolment(t).Certificate().Raw) {
		t.Error("two servers with one secret made different enrolment CAs")
	}
	if _, err := EnrolmentAuthority(Keys{}); err == nil {
		t.Error("an enrolment CA without keys")
	}
	// Any server accepts what any other issued.
	cert, err := enrolment(t).Issue(subject())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeyring(cert, enrolment(t).Certificate()); err != nil {
		t.Error(err)
	}
}

func TestAuthorityRoundTrip(t *testing.T) {
	a, err := NewAuthority(testSpec)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseAuthority(a.CertPEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if again.Hash() != a.Hash() || again.specID != testSpec {
		t.Errorf("read back %s of %s; want %s", again.Hash(), again.specID, a.Hash())
	}
	other, err := NewAuthority(testSpec)
	if err != nil {
		t.Fatal(err)
	}
	if other.Hash() == a.Hash() {
		t.Error("two agent CAs are the same")
	}
	if _, err := ParseAuthority(other.CertPEM(), keyPEM); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("foreign key: %v", err)
	}
	if _, err := ParseAuthority([]byte("no"), keyPEM); err == nil {
		t.Error("no certificate was accepted")
	}
}

func TestSign(t *testing.T) {
	a := enrolment(t)
	keyPEM, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := Request(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s := subject()
	leafPEM, err := a.Sign(csr, s)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ParseCertificate(leafPEM)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{leaf.Subject.CommonName, leaf.URIs[0].String(), leaf.DNSNames[0], leaf.IPAddresses[0].String(), leaf.IPAddresses[1].String(), leaf.NotAfter.Format("2006"), leaf.NotBefore.Format("2006")}
	want := []string{s.Inst, "muster:///" + testSpec + "/" + testHW + "/" + s.Inst, "muster", "10.99.14.9", "fd00::9", "9999", "1970"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("leaf (-want +got):\n%s", diff)
	}
	if key, err := RequestKey(csr); err != nil || key != Hash(leaf) {
		t.Errorf("RequestKey = %q, %v; expected that of the leaf, %s", key, err, Hash(leaf))
	}

	flipped := bytes.Clone(csr)
	flipped[len(flipped)/2] ^= 1
	if _, err := RequestKey(flipped); err == nil {
		t.Error("a damaged request has a key")
	}
	if _, err := a.Sign(flipped, s); err == nil {
		t.Error("a damaged request was signed")
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ecKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(foreign, s); err == nil || !strings.Contains(err.Error(), "ECDSA key; expected Ed25519") {
		t.Errorf("request with another kind of key: %v", err)
	}
	s.Inst = "cp1"
	if _, err := a.Sign(csr, s); err == nil || !strings.Contains(err.Error(), `instance is "cp1"; expected 32 lower-case hex digits`) {
		t.Errorf("bad instance: %v", err)
	}
}

// openssl is the outside judge of what a certificate is.
func TestOpenSSLAccepts(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	a := enrolment(t)
	keyPEM, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := Request(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	leafPEM, err := a.Sign(csr, subject())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"ca.pem": a.CertPEM(), "leaf.pem": leafPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, purpose := range []string{"sslserver", "sslclient"} {
		cmd := exec.Command(openssl, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("openssl verify -purpose %s: %v\n%s", purpose, err, out)
		}
	}
	// The pin as kubeadm's documentation computes it.
	cmd := exec.Command("sh", "-c", "openssl x509 -pubkey -noout -in ca.pem | openssl pkey -pubin -outform der | openssl dgst -sha256 -r | cut -d' ' -f1")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "sha256:" + strings.TrimSpace(string(out)); a.Hash() != want {
		t.Errorf("Hash = %s; openssl says %s", a.Hash(), want)
	}
}

func TestSeal(t *testing.T) {
	key, err := NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		sealed, err := Seal(key.Public(), "pki a b", plaintext)
		if err != nil {
			t.Fatal(err)
		}
		got, err := key.Open("pki a b", sealed)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened %x, %v", got, err)
		}
		if _, err := key.Open("pki a c", sealed); err == nil {
			t.Fatal("opened for another purpose")
		}
		if _, err := other.Open("pki a b", sealed); err == nil {
			t.Fatal("opened with another key")
		}
		sealed[rapid.IntRange(0, len(sealed)-1).Draw(t, "flip")] ^= 1
		if _, err := key.Open("pki a b", sealed); err == nil {
			t.Fatal("opened damaged bytes")
		}
	})
	if _, err := Seal([]byte("short"), "x", nil); err == nil {
		t.Error("sealed to something that is no key")
	}
	if _, err := key.Open("x", nil); err == nil {
		t.Error("opened nothing")
	}
}
