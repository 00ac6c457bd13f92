package userdata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"
	"sync"
)

const (
	mimeHeader = "MIME-Version: 1.0\n"
	boundary   = "muster-part"
)

// mime is the cloud-config, compressed, as the one part of a multi-part message:
// some 40 % of its size, and still plain text for carriers that take nothing else.
// cloud-init looks into the part for what it is.
func (c Contents) mime() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sContent-Type: multipart/mixed; boundary=%q\n\n", mimeHeader, boundary)
	// A preamble is for people; no reader of MIME looks at it.
	fmt.Fprintf(&b, "%s--%s\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n", c.comment(), boundary)
	for encoded := base64.StdEncoding.EncodeToString(compress(c.cloudConfig())); encoded != ""; {
		const line = 76 // characters, RFC 2045 6.8
		n := min(line, len(encoded))
		b.WriteString(encoded[:n] + "\n")
		encoded = encoded[n:]
	}
	fmt.Fprintf(&b, "--%s--\n", boundary)
	return b.String()
}

// gzips are writers at rest: one has 800 KB, and a thousand servers need not a
// thousand of them.
var gzips = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// compress is gzip without a time or a name in it.
func compress(text string) []byte {
	w := gzips.Get().(*gzip.Writer)
	defer gzips.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	_, err := w.Write([]byte(text))
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}

// largest is how much text compressed user-data may hold when it is read back:
// far more than any platform carries, and no bomb.
const largest = 8 << 20

func decompress(data []byte) (string, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(r, largest+1))
	if err == nil && len(text) > largest {
		err = fmt.Errorf("it unpacks to more than %d bytes", largest)
	}
	return string(text), err
}

// unpackMIME returns the first part that is a text of ours.
func unpackMIME(text string) (string, error) {
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		return "", err
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return "", fmt.Errorf("it has Content-Type %q, expected multipart/mixed (%v)", kind, err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if err != nil {
			return "", fmt.Errorf("no part of it is a cloud-config or a script of muster: %w", err)
		}
		var body io.Reader = part
		if strings.EqualFold(part.Header.Get("Content-Transfer-Encoding"), "base64") {
			body = base64.NewDecoder(base64.StdEncoding, part)
		}
		data, err := io.ReadAll(io.LimitReader(body, largest))
		if err != nil {
			return "", err
		}
		inner := string(data)
		if strings.Contains(part.Header.Get("Content-Type"), "gzip") {
			if inner, err = decompress(data); err != nil {
				return "", err
			}
		}
		if strings.HasPrefix(inner, cloudConfigHeader) || strings.HasPrefix(inner, scriptHeader) {
			return inner, nil
		}
	}
}
