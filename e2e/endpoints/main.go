// Command endpoints is what `cc-ci-run host` asks in e2e/host: a server of HTTP
// and one of HTTPS, on loopback, that misbehave as a file says.
//
//	endpoints DIR
//
// DIR/ports gets "HTTP TLS", DIR/ca.pem the authority of its certificates. While
// it runs, DIR/mode holds one word: ok, 500, hang, or for HTTPS expired (a
// certificate of last month), soon (of three more days), stranger (no known
// authority).
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(dir string) error {
	mode := func() string {
		data, _ := os.ReadFile(filepath.Join(dir, "mode"))
		return strings.TrimSpace(string(data))
	}
	month := 30 * 24 * time.Hour
	known, err := newAuthority()
	if err != nil {
		return err
	}
	stranger, err := newAuthority()
	if err != nil {
		return err
	}
	certificates := map[string]*tls.Certificate{}
	for name, c := range map[string]struct {
		authority
		until time.Duration
	}{"ok": {known, 2 * month}, "expired": {known, -month}, "soon": {known, 3 * 24 * time.Hour}, "stranger": {stranger, 2 * month}} {
		if certificates[name], err = c.issue(c.until); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), known.pem, 0o644); err != nil {
		return err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch mode() {
		case "500":
			w.WriteHeader(http.StatusInternalServerError)
		case "hang":
			<-r.Context().Done()
		}
	})
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := certificates[mode()]; c != nil {
			return c, nil
		}
		return certificates["ok"], nil
	}})
	if err != nil {
		return err
	}
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	ports := fmt.Sprintln(port(plain), port(secure))
	if err := os.WriteFile(filepath.Join(dir, "ports"), []byte(ports), 0o644); err != nil {
		return err
	}
	go func() { log.Fatal(http.Serve(secure, handler)) }()
	return http.Serve(plain, handler)
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority() (a authority, err error) {
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return a, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"},
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		return a, err
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// issue makes a certificate for localhost that is valid for so long from now.
func (a authority) issue(until time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{"localhost"},
		NotBefore: time.Now().AddDate(0, -2, 0), NotAfter: time.Now().Add(until),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
