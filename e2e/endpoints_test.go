//go:build environment && e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// endpoints are what `cc-ci-run host` asks: a server of HTTP and one of HTTPS,
// on loopback, that misbehave as their mode says:
//
//	500       is every answer's status
//	hang      no answer
//	ten       no answer before ten requests are under way at once
//	expired   HTTPS with a certificate of last month
//	soon      with one that is valid for three more days
//	stranger  with one of an unknown authority
//
// In any other mode they are well.
type endpoints struct {
	http, https string // URLs
	ca          string // the authority of the certificates, PEM
	mode        atomic.Value
	asked       atomic.Int32 // requests in the mode ten
	ten         chan struct{}
}

func newEndpoints(t *testing.T) *endpoints {
	t.Helper()
	e := &endpoints{ten: make(chan struct{})}
	e.mode.Store("")
	known, stranger := newAuthority(t), newAuthority(t)
	e.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: known.cert.Raw}))
	const month = 30 * 24 * time.Hour
	certificates := map[string]*tls.Certificate{
		"":         known.issue(t, 2*month),
		"expired":  known.issue(t, -month),
		"soon":     known.issue(t, 3*24*time.Hour),
		"stranger": stranger.issue(t, 2*month),
	}
	serve := func(start func(*httptest.Server)) (port int) {
		s := httptest.NewUnstartedServer(e)
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that refuses a certificate is what a test wants
		s.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := certificates[e.mode.Load().(string)]; c != nil {
				return c, nil
			}
			return certificates[""], nil
		}}
		start(s)
		t.Cleanup(s.Close)
		return s.Listener.Addr().(*net.TCPAddr).Port
	}
	e.http = fmt.Sprintf("http://127.0.0.1:%d/", serve((*httptest.Server).Start))
	e.https = fmt.Sprintf("https://localhost:%d/", serve((*httptest.Server).StartTLS))
	return e
}

func (e *endpoints) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	gone := r.Context().Done() // when the client gave up
	switch e.mode.Load() {
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	case "hang":
		<-gone
	case "ten":
		if e.asked.Add(1) == 10 {
			close(e.ten)
		}
		select {
		case <-e.ten:
		case <-gone:
			e.asked.Add(-1)
		}
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	return authority{}.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "e2e"}, NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
}

// issue makes a certificate for localhost that is valid for so long from now.
func (a authority) issue(t *testing.T, until time.Duration) *tls.Certificate {
	t.Helper()
	c := a.sign(t, &x509.Certificate{DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(until)})
	return &tls.Certificate{Certificate: [][]byte{c.cert.Raw}, PrivateKey: c.key}
}

// sign makes a key, and a certificate of it; the zero authority, its own.
func (a authority) sign(t *testing.T, template *x509.Certificate) (signed authority) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		a = authority{template, key}
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().AddDate(-1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	signed = authority{key: key}
	if signed.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return signed
}
