package plan

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func testCA(t *testing.T, seed byte) []byte {
	t.Helper()
	key := ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), seed))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestCAHash compares with the recipe of the Kubernetes documentation for
// --discovery-token-ca-cert-hash, run by openssl.
func TestCAHash(t *testing.T) {
	ca := testCA(t, 1)
	got, err := CAHash(ca)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: the hash is not compared with its own")
	}
	recipe := exec.CommandContext(t.Context(), "sh", "-c",
		"openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -hex | sed 's/^.* //'")
	recipe.Stdin = strings.NewReader(string(ca))
	out, err := recipe.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "sha256:" + strings.TrimSpace(string(out)); got != want {
		t.Errorf("CAHash is %s, openssl says %s", got, want)
	}
}

// TestPinnedCA: the pinned CA passes; another one, or what is none, does not.
func TestPinnedCA(t *testing.T) {
	ca := testCA(t, 1)
	pin, err := CAHash(ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := PinnedCA(ca, pin); err != nil {
		t.Errorf("the pinned CA: %v", err)
	}
	err = PinnedCA(testCA(t, 2), pin)
	if err == nil || !strings.Contains(err.Error(), "the decree pins "+pin+": it is another cluster's") {
		t.Errorf("another CA: %v", err)
	}
	if err := PinnedCA(ca, ""); err == nil {
		t.Error("a CA passed without a pin")
	}
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	for _, none := range [][]byte{nil, []byte("hello"), broken} {
		if err := PinnedCA(none, pin); err == nil || !strings.Contains(err.Error(), "CA certificate") {
			t.Errorf("%q: %v", none, err)
		}
	}
}
