package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/finding"
)

// name is the URL without what may be secret: a password, and a query.
func (e Endpoint) name() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return "an endpoint whose URL cannot be read"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	u.Fragment = ""
	return u.Redacted()
}

// look asks an endpoint once. Redirects are not followed: their status is the
// answer.
func (e Endpoint) look(ctx context.Context) []finding.Finding {
	began := time.Now()
	transport := &http.Transport{DisableKeepAlives: true} // no proxy: this host is asked
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL, nil)
	if err != nil {
		return one(finding.Unknown, e.name(), err.Error(), "")
	}
	request.Header.Set("User-Agent", "cc-ci-run host")
	answer, err := client.Do(request)
	took := time.Since(began).Round(time.Millisecond)
	if err != nil {
		return one(finding.Fault, e.name(), cause(err), fix(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != e.Status {
		return one(finding.Fault, e.name(), fmt.Sprintf("%s, should be %d", answer.Status, e.Status), "is what serves it up? look at its log")
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20)); err != nil {
		return one(finding.Fault, e.name(), answer.Status+", but its body does not end: "+cause(err), fix(err))
	}
	state := fmt.Sprintf("%s after %s", answer.Status, took)
	if answer.TLS != nil && len(answer.TLS.PeerCertificates) > 0 {
		left := time.Until(answer.TLS.PeerCertificates[0].NotAfter)
		days := int(left.Hours() / 24)
		state += fmt.Sprintf(", certificate for %d days", days)
		if left < time.Duration(e.MinDays)*24*time.Hour {
			return one(finding.Fault, e.name(), fmt.Sprintf("%s, should be %d at least", state, e.MinDays), "renew its certificate; is its renewal's timer active?")
		}
	}
	return one(finding.OK, e.name(), state, "")
}

// cause is an error without the method and URL that net/http puts before it.
func cause(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		var op *net.OpError
		if errors.As(err, &op) || errors.As(inner, new(*tls.CertificateVerificationError)) {
			return inner.Error()
		}
		err = inner
	}
	return err.Error()
}

func fix(err error) string {
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew its certificate; is its renewal's timer active?"
	case errors.As(err, &verification):
		return "is it the right certificate, of a known authority?"
	case errors.As(err, &dns):
		return "does the name resolve? resolvectl query NAME"
	}
	return "is what serves it up? look at its log"
}

// docker asks the daemon by its socket.
func (h Host) docker(context.Context) []finding.Finding {
	const name, restart = "docker", "systemctl restart docker.service; journalctl -u docker.service"
	socket := h.Config.Docker
	d := docker.Ask(socket, h.Config.Timeout*9/10) // before this check is given up
	switch {
	case d.State == docker.Denied && inGroup(docker.Group):
		return one(finding.Fault, name, socket+" gives the group docker no access", "systemctl restart docker.socket")
	case d.State == docker.Denied:
		return one(finding.LeftOut, name, "only root and the group docker may ask "+socket, "again as root")
	case d.State == docker.Absent:
		return one(finding.Fault, name, socket+" "+d.Reason, "systemctl start docker.socket docker.service")
	case d.State != docker.Answers:
		return one(finding.Fault, name, socket+" "+d.Reason, restart)
	}
	// Root gets in anyway; who runs tests does as one of the group.
	group, unknown := user.LookupGroup(docker.Group)
	info, err := os.Stat(socket)
	if err == nil && unknown == nil {
		owner := info.Sys().(*syscall.Stat_t)
		if strconv.Itoa(int(owner.Gid)) != group.Gid || info.Mode()&0o060 != 0o060 {
			return one(finding.Fault, name, socket+" gives the group docker no access", "systemctl restart docker.socket")
		}
	}
	state := fmt.Sprintf("daemon %s answers at %s", d.Version, socket)
	switch {
	case d.Swarm:
		return one(finding.OK, name, state+", swarm active", "")
	case h.Config.Swarm:
		return one(finding.Fault, name, state+", swarm not active, so no recipe can be deployed: "+d.Reason, "docker swarm init")
	}
	return one(finding.OK, name, state+", swarm not active", "")
}

// inGroup says whether this process is of a group.
func inGroup(name string) bool {
	group, err := user.LookupGroup(name)
	if err != nil {
		return false
	}
	groups, err := os.Getgroups()
	return err == nil && slices.ContainsFunc(groups, func(id int) bool { return strconv.Itoa(id) == group.Gid })
}
