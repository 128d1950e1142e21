package source

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/sluicerun/sluice/internal/retry"
)

// userAgent begins like git's own: some forges tell Git clients from browsers by it.
const userAgent = "git/2.0 (sluice)"

// anyUser is the user name beside a token where none was given. GitHub documents it; others take any.
const anyUser = "x-access-token"

// httpSession speaks the smart HTTP protocol: one request for the references, one per order.
type httpSession struct {
	location location
	base     *url.URL // where the server redirected to, without query
	client   *http.Client
	auth     httpAuth
	secrets  secrets
	adv      *packp.AdvRefs
}

// httpAuth are the credentials of one server.
type httpAuth struct {
	username, password string
	token              string // also the password, unless the server only takes bearer tokens
	header             string // a whole Authorization header, from a checkout's configuration
	bearer             bool
}

func (a httpAuth) empty() bool { return a == (httpAuth{}) }

func (a httpAuth) apply(r *http.Request) {
	switch {
	case a.header != "":
		r.Header.Set("Authorization", a.header)
	case a.bearer && a.token != "":
		r.Header.Set("Authorization", "Bearer "+a.token)
	case a.username != "" || a.password != "":
		r.SetBasicAuth(a.username, a.password)
	}
}

func newHTTPAuth(l location, auth Auth, header string) httpAuth {
	a := httpAuth{username: auth.Username, password: auth.Password, token: auth.Token}
	if a.token != "" {
		a.password = a.token
	}
	if a.password == "" {
		a.password = l.password
	}
	if a.username == "" {
		a.username = l.user
	}
	if a.username == "" && a.password != "" {
		a.username = anyUser
	}
	if a.empty() {
		a.header = header
	}
	return a
}

func dialHTTP(ctx context.Context, l location, auth Auth, header string) (session, error) {
	s := &httpSession{location: l, auth: newHTTPAuth(l, auth, header)}
	s.secrets.add(auth.Token, auth.Password, l.password, s.auth.header)
	if s.auth.token == "" && l.password == "" {
		s.secrets.add(l.user) // https://TOKEN@host
	}
	if l.scheme == "http" && !s.auth.empty() && !l.isLoopback() {
		return nil, retry.Permanent(failf(ErrInsecure, "use https", "credentials are not sent to %s: plain http would show them to the network", l))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // its proxy comes from the environment, as Go programs have it
	if len(auth.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // no system pool on this platform: the given one is all there is
		}
		if !pool.AppendCertsFromPEM(auth.CA) {
			return nil, retry.Permanent(failf(ErrCertificate, "give PEM text with -----BEGIN CERTIFICATE-----", "the CA certificates for %s hold no certificate", l))
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	s.client = &http.Client{Transport: transport, CheckRedirect: s.redirect}
	s.base = &url.URL{Scheme: l.scheme, Host: l.hostPort(), Path: strings.TrimSuffix(l.path, "/")}
	err := s.readAdverts(ctx)
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// redirect follows a repository that moved, not away from encryption. Go drops the credentials when the host changes.
func (s *httpSession) redirect(next *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return retry.Permanent(failf(ErrServer, "use the URL that the repository has now", "%s redirects more than 5 times", s.location))
	}
	if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return retry.Permanent(failf(ErrServer, "use the URL that the repository has now", "%s redirects from https to http, which is not followed", s.location))
	}
	return nil
}

func (s *httpSession) readAdverts(ctx context.Context) error {
	at := *s.base
	at.Path += "/info/refs"
	at.RawQuery = "service=git-upload-pack"
	response, stop, err := s.do(ctx, http.MethodGet, &at, nil)
	if err != nil {
		return err
	}
	defer stop()
	if response.StatusCode == http.StatusUnauthorized && s.onlyBearer(response) {
		stop()
		s.auth.bearer = true
		if response, stop, err = s.do(ctx, http.MethodGet, &at, nil); err != nil {
			return err
		}
		defer stop()
	}
	if err := s.status(response); err != nil {
		return err
	}
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "application/x-git-upload-pack-advertisement") {
		return retry.Permanent(failf(ErrNotRepository, "check the URL: it must be the one that `git clone` takes",
			"%s answers, but not as a Git repository (%s)", s.location, contentKind(response)))
	}
	final := *response.Request.URL
	path, ok := strings.CutSuffix(final.Path, "/info/refs")
	if !ok {
		return retry.Permanent(failf(ErrNotRepository, "", "%s redirects to a place that is no Git repository", s.location))
	}
	if final.Host != s.base.Host {
		s.auth = httpAuth{} // not this server's
	}
	s.base = &url.URL{Scheme: final.Scheme, Host: final.Host, Path: path}
	if s.adv, err = readAdverts(response.Body); err != nil {
		return s.failure(err)
	}
	return nil
}

func contentKind(r *http.Response) string {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if kind == "" {
		return "no content type"
	}
	return "content type " + strconv.Quote(kind)
}

// onlyBearer reports whether the server asks for a bearer token and a token is what there is.
func (s *httpSession) onlyBearer(r *http.Response) bool {
	challenges := strings.ToLower(strings.Join(r.Header.Values("WWW-Authenticate"), ", "))
	return s.auth.token != "" && !s.auth.bearer && strings.Contains(challenges, "bearer") && !strings.Contains(challenges, "basic")
}

// do sends one request. The response's body and the watching end with stop.
func (s *httpSession) do(ctx context.Context, method string, at *url.URL, body []byte) (*http.Response, func(), error) {
	watched, beat, stop := watch(ctx)
	request, err := http.NewRequestWithContext(watched, method, at.String(), bytes.NewReader(body))
	if err != nil {
		stop()
		return nil, nil, err
	}
	request.Header.Set("User-Agent", userAgent)
	if body != nil {
		request.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		request.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	s.auth.apply(request)
	response, err := s.client.Do(request)
	if err != nil {
		err = s.transportError(watched, err)
		stop()
		return nil, nil, err
	}
	inner := response.Body
	response.Body = &watchedReader{Reader: &causeReader{ctx: watched, r: inner}, beat: beat, close: func() error {
		stop()
		return inner.Close()
	}}
	return response, func() { response.Body.Close() }, nil
}

// causeReader names the context's cause instead of "context canceled".
type causeReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *causeReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF && c.ctx.Err() != nil {
		err = context.Cause(c.ctx)
	}
	return n, err
}

func (s *httpSession) transportError(ctx context.Context, err error) error {
	var asURL *url.Error
	if errors.As(err, &asURL) {
		err = asURL.Err // the URL is in our text already
	}
	if retry.IsPermanent(err) { // of redirect
		return err
	}
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	if errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verification) {
		return retry.Permanent(failf(ErrCertificate, "name the file with your own CA's certificates by SLUICE_GIT_CA_FILE", "cannot trust %s: %w", s.location, err))
	}
	return unreachable(ctx, s.location, err)
}

// status makes errors of all answers but 200.
func (s *httpSession) status(r *http.Response) error {
	switch code := r.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusUnauthorized && s.auth.empty():
		return retry.Permanent(failf(ErrAuthRequired, remedyHTTP, "%s asks for credentials and none were given", s.location))
	case code == http.StatusUnauthorized:
		return retry.Permanent(failf(ErrAuthFailed, "the token may be wrong, expired or for another server; "+remedyHTTP, "%s does not accept the credentials%s", s.location, s.said(r)))
	case code == http.StatusForbidden:
		return retry.Permanent(failf(ErrAuthFailed, "the credentials need permission to read this repository; "+remedyHTTP, "%s refuses access%s", s.location, s.said(r)))
	case code == http.StatusNotFound || code == http.StatusGone:
		remedy := "check the URL; the credentials may also lack permission to read this repository"
		if s.auth.empty() {
			remedy = "check the URL; if the repository is private, " + remedyHTTP
		}
		return retry.Permanent(failf(ErrRepositoryNotFound, remedy, "there is no repository at %s%s", s.location, s.said(r)))
	case code == http.StatusTooManyRequests || code >= 500:
		err := failf(ErrServer, "", "%s answers %s%s", s.location, r.Status, s.said(r))
		wait, ok := retryAfter(r)
		if !ok {
			return err
		}
		if wait > time.Minute {
			err.Remedy = "try again in " + wait.String()
			return retry.Permanent(err)
		}
		return retry.After(err, wait)
	default:
		return retry.Permanent(failf(ErrServer, "", "%s answers %s%s", s.location, r.Status, s.said(r)))
	}
}

// said quotes a server's plain text, which forges use for the reason.
func (s *httpSession) said(r *http.Response) string {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
		return ""
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 2048))
	text := firstLines(s.secrets.scrub(string(body)))
	if err != nil || text == "" {
		return ""
	}
	return ": " + strconv.Quote(text)
}

// retryAfter reads the header's two forms (RFC 9110, 10.2.3).
func retryAfter(r *http.Response) (time.Duration, bool) {
	value := r.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0).Round(time.Second), true
	}
	return 0, false
}

func (s *httpSession) adverts() *packp.AdvRefs { return s.adv }

func (s *httpSession) send(ctx context.Context, request []byte) (io.ReadCloser, error) {
	at := *s.base
	at.Path += "/git-upload-pack"
	response, stop, err := s.do(ctx, http.MethodPost, &at, request)
	if err != nil {
		return nil, err
	}
	if err := s.status(response); err != nil {
		stop()
		return nil, err
	}
	return response.Body, nil
}

func (s *httpSession) failure(err error) error {
	return protocolError(s.location, s.secrets, err)
}

func (s *httpSession) close() { s.client.CloseIdleConnections() }

// protocolError explains an error in the conversation itself. What the server says about a request will not change; a broken
// connection may.
func protocolError(l location, hidden secrets, err error) error {
	var line *pktline.ErrorLine
	if errors.As(err, &line) {
		text := hidden.scrub(firstLines(line.Text))
		if isNotFound(text) {
			return retry.Permanent(failf(ErrRepositoryNotFound, "check the URL and that the credentials may read this repository", "there is no repository at %s: %q", l, text))
		}
		return retry.Permanent(failf(ErrServer, "", "%s says %q", l, text))
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return retry.Permanent(err)
	}
	var known *Error
	if errors.As(err, &known) || retry.IsPermanent(err) {
		return err
	}
	return failf(ErrUnreachable, "check the network", "the conversation with %s broke: %w", l, err)
}

// isNotFound knows the words of the common servers; SSH has no status codes.
func isNotFound(text string) bool {
	text = strings.ToLower(text)
	for _, words := range []string{"not found", "does not exist", "does not appear to be a git repository", "could not be found", "no such repository", "not exported"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
