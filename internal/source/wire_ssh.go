package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/sluicerun/sluice/internal/retry"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// sshSession runs git-upload-pack on the server. It serves one order: the program ends with it.
type sshSession struct {
	location location
	ctx      context.Context // of the connection: ends it
	stop     func()
	conn     io.Closer
	client   *ssh.Client
	session  *ssh.Session
	stdin    io.WriteCloser
	stdout   io.Reader
	stderr   *lockedBuffer
	secrets  secrets
	adv      *packp.AdvRefs
	asked    bool
}

// lockedBuffer takes the beginning of what a program says.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return (&limited{&b.text, 4096}).Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func dialSSH(ctx context.Context, l location, auth Auth) (session, error) {
	s := &sshSession{location: l, stderr: &lockedBuffer{}}
	s.secrets.add(auth.Passphrase, l.password)
	address := net.JoinHostPort(l.host, l.port)
	if l.port == "" {
		address = net.JoinHostPort(l.host, "22")
	}
	hosts, err := newHostKeys(l, auth.KnownHosts)
	if err != nil {
		return nil, err
	}
	methods, agentConn, err := sshMethods(ctx, l, auth)
	if err != nil {
		return nil, err
	}
	if agentConn != nil {
		defer agentConn.Close() // only signing in needs it
	}
	watched, beat, stop := watch(ctx)
	conn, err := (&net.Dialer{}).DialContext(watched, "tcp", address)
	if err != nil {
		err = unreachable(watched, l, err)
		stop()
		return nil, err
	}
	// Nothing in the SSH library takes a context: closing the connection is what ends a wait.
	unhook := context.AfterFunc(watched, func() { conn.Close() })
	s.ctx, s.conn = watched, conn
	s.stop = func() {
		unhook()
		stop()
	}
	if err := s.start(address, methods, hosts, beat); err != nil {
		err = s.dialError(err, hosts, len(methods) > 0)
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *sshSession) start(address string, methods []ssh.AuthMethod, hosts *hostKeys, beat func()) error {
	config := &ssh.ClientConfig{
		User:              s.location.sshUser(),
		Auth:              methods,
		HostKeyCallback:   hosts.check,
		HostKeyAlgorithms: hosts.algorithms(address),
	}
	conn, channels, requests, err := ssh.NewClientConn(s.conn.(net.Conn), address, config)
	if err != nil {
		return err
	}
	s.client = ssh.NewClient(conn, channels, requests)
	if s.session, err = s.client.NewSession(); err != nil {
		return err
	}
	s.session.Stderr = s.stderr
	if s.stdin, err = s.session.StdinPipe(); err != nil {
		return err
	}
	stdout, err := s.session.StdoutPipe()
	if err != nil {
		return err
	}
	s.stdout = &watchedReader{Reader: &causeReader{ctx: s.ctx, r: stdout}, beat: beat}
	if err := s.session.Start("git-upload-pack " + shellQuote(s.location.path)); err != nil {
		return err
	}
	s.adv, err = readAdverts(s.stdout)
	return err
}

// shellQuote is how git quotes the path: some servers parse the command by themselves.
func shellQuote(text string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(text) + "'"
}

func (s *sshSession) dialError(err error, hosts *hostKeys, hadKeys bool) error {
	switch {
	case hosts.failed != nil:
		return hosts.failed
	case s.ctx.Err() != nil:
		return unreachable(s.ctx, s.location, err)
	case strings.Contains(err.Error(), "unable to authenticate") && !hadKeys:
		return retry.Permanent(failf(ErrAuthRequired, remedySSH, "%s asks for a key and none was given", s.location))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return retry.Permanent(failf(ErrAuthFailed, "add its public key to the repository as a deploy key; "+remedySSH, "%s does not accept the SSH key", s.location))
	case s.client == nil:
		return unreachable(s.ctx, s.location, err)
	}
	return s.failure(err)
}

func (s *sshSession) adverts() *packp.AdvRefs { return s.adv }

func (s *sshSession) send(_ context.Context, request []byte) (io.ReadCloser, error) {
	if s.asked {
		return nil, errors.New("an SSH session serves one request")
	}
	s.asked = true
	if _, err := s.stdin.Write(request); err != nil {
		return nil, s.failure(err)
	}
	return io.NopCloser(s.stdout), nil
}

// failure prefers what the program on the server said to how its silence looked here.
func (s *sshSession) failure(err error) error {
	if s.ctx.Err() != nil {
		return unreachable(s.ctx, s.location, err)
	}
	var line *pktline.ErrorLine
	if !errors.As(err, &line) && s.session != nil {
		// The program has ended or is about to; its last words may still be under way.
		s.conn.(net.Conn).SetReadDeadline(time.Now().Add(5 * time.Second))
		_ = s.session.Wait()
		if text := s.secrets.scrub(firstLines(s.stderr.String())); text != "" {
			if isNotFound(text) {
				return retry.Permanent(failf(ErrRepositoryNotFound, "check the URL and that the key may read this repository", "there is no repository at %s: %q", s.location, text))
			}
			return retry.Permanent(failf(ErrServer, "", "%s says %q", s.location, text))
		}
	}
	return protocolError(s.location, s.secrets, err)
}

func (s *sshSession) close() {
	if s.stdin != nil && !s.asked {
		_, _ = s.stdin.Write(pktline.FlushPkt) // a polite end: nothing is wanted
	}
	if s.client != nil {
		s.client.Close()
	}
	s.conn.Close()
	s.stop()
}

// sshMethods are the ways to sign in. The connection to an agent must stay open until signed in; it is nil without one.
func sshMethods(ctx context.Context, l location, auth Auth) ([]ssh.AuthMethod, io.Closer, error) {
	if len(auth.SSHKey) > 0 {
		signer, err := parseKey(l, auth)
		if err != nil {
			return nil, nil, err
		}
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil, nil
	}
	if auth.SSHAgent == "" {
		return nil, nil, nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", auth.SSHAgent)
	if err != nil {
		return nil, nil, retry.Permanent(failf(ErrAuthFailed, remedySSH, "cannot ask the SSH agent for a key to %s: %w", l, err))
	}
	return []ssh.AuthMethod{ssh.PublicKeysCallback(agent.NewClient(conn).Signers)}, conn, nil
}

func parseKey(l location, auth Auth) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(auth.SSHKey)
	var encrypted *ssh.PassphraseMissingError
	if errors.As(err, &encrypted) {
		if auth.Passphrase == "" { // S10.10
			return nil, retry.Permanent(failf(ErrAuthRequired, "set SLUICE_SSH_KEY_PASSPHRASE", "the SSH key for %s is encrypted and no passphrase was given", l))
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(auth.SSHKey, []byte(auth.Passphrase))
		if err != nil {
			return nil, retry.Permanent(failf(ErrAuthFailed, "check SLUICE_SSH_KEY_PASSPHRASE", "the passphrase does not open the SSH key for %s", l))
		}
	}
	if err != nil {
		// The library's text may quote the key; what matters is that it is none.
		return nil, retry.Permanent(failf(ErrAuthFailed, "SLUICE_SSH_KEY_FILE must name a private key in PEM form (-----BEGIN … PRIVATE KEY-----), with its line breaks", "the SSH key for %s cannot be read", l))
	}
	return signer, nil
}

// hostKeys checks servers against a known_hosts file.
type hostKeys struct {
	location location
	known    ssh.HostKeyCallback
	failed   error // of the last check; used from one goroutine at a time
}

func newHostKeys(l location, text []byte) (*hostKeys, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, retry.Permanent(failf(ErrHostKey, fmt.Sprintf(remedyHost, keyscanArgs(l)), "the key of the SSH server %s cannot be checked: no known hosts were given", l.hostPort()))
	}
	// The library reads files only.
	dir, err := os.MkdirTemp("", "sluice-known-hosts-")
	if err != nil {
		return nil, retry.Permanent(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return nil, retry.Permanent(err)
	}
	known, err := knownhosts.New(name)
	if err != nil {
		why := strings.ReplaceAll(err.Error(), name+":", "line ")
		return nil, retry.Permanent(failf(ErrHostKey, "give lines as `ssh-keyscan` prints them", "the known hosts cannot be read: %s", why))
	}
	return &hostKeys{location: l, known: known}, nil
}

func keyscanArgs(l location) string {
	if l.port != "" && l.port != "22" {
		return "-p " + l.port + " " + l.host
	}
	return l.host
}

func (h *hostKeys) check(hostname string, remote net.Addr, key ssh.PublicKey) error {
	err := h.known(hostname, remote, key)
	if err == nil {
		return nil
	}
	fingerprint := ssh.FingerprintSHA256(key)
	var unknown *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		h.failed = failf(ErrHostKey, "do not connect; ask whoever runs the server", "the key of the SSH server %s (%s) is marked as revoked in the known hosts", h.location.hostPort(), fingerprint)
	case errors.As(err, &unknown) && len(unknown.Want) > 0:
		h.failed = failf(ErrHostKey, "if the server's key was changed on purpose, replace its line in the file that SLUICE_SSH_KNOWN_HOSTS_FILE names; if not, somebody may be listening",
			"the key of the SSH server %s (%s %s) is not the one in the known hosts", h.location.hostPort(), key.Type(), fingerprint)
	default:
		h.failed = failf(ErrHostKey, fmt.Sprintf(remedyHost, keyscanArgs(h.location)), "the SSH server %s is not in the known hosts (its key is %s %s)", h.location.hostPort(), key.Type(), fingerprint)
	}
	h.failed = retry.Permanent(h.failed)
	return h.failed
}

// algorithms are those of the keys that are known for the server. A server has several keys; asked for any, it may show one
// that is not in the file though another is.
func (h *hostKeys) algorithms(address string) []string {
	err := h.known(address, &net.TCPAddr{IP: net.IPv4zero}, noKey{})
	var want *knownhosts.KeyError
	if !errors.As(err, &want) {
		return nil
	}
	var names []string
	for _, known := range want.Want {
		switch name := known.Key.Type(); name {
		case ssh.KeyAlgoRSA: // one kind of key, three ways to sign
			names = append(names, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512)
		default:
			names = append(names, name)
		}
	}
	return names
}

// noKey matches no known key, so that the answer lists those that are known.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }
