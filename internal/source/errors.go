package source

import (
	"errors"
	"fmt"
	"strings"
)

// What can be wrong, for errors.Is. Every error of this package that a user must act on is an [*Error] whose Is is one of
// these; the context's cause and file errors come as they are.
var (
	// ErrInvalidURL: the text is no URL of a scheme that is known here.
	ErrInvalidURL = errors.New("not a usable repository URL")
	// ErrInsecure: credentials would have gone over the network in clear text.
	ErrInsecure = errors.New("credentials over plain http")
	// ErrNotRepository: a folder that is not in a Git repository, or a URL that answers, but not as a Git server.
	ErrNotRepository = errors.New("not a git repository")
	// ErrRepositoryNotFound: the server has no such repository, or hides it from these credentials.
	ErrRepositoryNotFound = errors.New("repository not found")
	// ErrEmptyRepository: a repository without any commit.
	ErrEmptyRepository = errors.New("empty repository")
	// ErrUnsupportedRepository: a repository in a format that cannot be read here.
	ErrUnsupportedRepository = errors.New("unsupported repository format")
	// ErrUnknownRevision: no commit, tag or branch is called that.
	ErrUnknownRevision = errors.New("unknown revision")
	// ErrAmbiguousRevision: more than one commit is called that.
	ErrAmbiguousRevision = errors.New("ambiguous revision")
	// ErrAuthRequired: the server wants credentials and none were given.
	ErrAuthRequired = errors.New("authentication required")
	// ErrAuthFailed: the server, or a key's passphrase, did not accept the credentials that were given.
	ErrAuthFailed = errors.New("authentication failed")
	// ErrHostKey: the SSH server's key is not in the known hosts, or differs from the one there.
	ErrHostKey = errors.New("host key not trusted")
	// ErrCertificate: the HTTPS server's certificate is not trusted.
	ErrCertificate = errors.New("certificate not trusted")
	// ErrUnreachable: no connection, or the connection broke, also when tried again.
	ErrUnreachable = errors.New("host unreachable")
	// ErrServer: the server answered with an error of its own.
	ErrServer = errors.New("server error")
)

// Error is a problem that a user can solve. It never holds a credential.
type Error struct {
	// Is is one of the Err… values above.
	Is error
	// Text says what is wrong, with the repository and the revision concerned.
	Text string
	// Remedy says what to do, in one line; may be empty.
	Remedy string
	// Candidates are what an unknown or ambiguous revision may have meant, best first.
	Candidates []string
	// Cause is what lies below, if anything does; its text is already part of Text.
	Cause error
}

// Error is the text of what is wrong.
func (e *Error) Error() string { return e.Text }

// Hint is the remedy.
func (e *Error) Hint() string { return e.Remedy }

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Is}
	}
	return []error{e.Is, e.Cause}
}

func failf(is error, remedy string, format string, args ...any) *Error {
	e := &Error{Is: is, Remedy: remedy}
	wrapped := fmt.Errorf(format, args...)
	e.Text = wrapped.Error()
	e.Cause = errors.Unwrap(wrapped)
	return e
}

// The variables are those of the command line, which turns them into [Auth]; a hint that named fields would help nobody.
const (
	remedyHTTP = "set SLUICE_GIT_TOKEN to a token that may read the repository, or SLUICE_GIT_USERNAME and SLUICE_GIT_PASSWORD"
	remedySSH  = "set SLUICE_SSH_KEY_FILE to a private key that may read the repository (an encrypted key needs SLUICE_SSH_KEY_PASSPHRASE)"
	remedyHost = "check the server's key and put its line into the file that SLUICE_SSH_KNOWN_HOSTS_FILE names; `ssh-keyscan %s` prints it"
)

// secrets are texts that must not show.
type secrets []string

func (s *secrets) add(values ...string) {
	for _, v := range values {
		if len(v) > 2 { // shorter ones hide nothing and would tear holes into every text
			*s = append(*s, v)
		}
	}
}

// scrub removes secrets from a text of the server's or a library's making.
func (s secrets) scrub(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// firstLines shortens what a server says to what fits into an error message.
func firstLines(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "remote:"))
		if line == "" || strings.Trim(line, "=-*") == "" {
			continue
		}
		kept = append(kept, line)
		if len(kept) == 3 {
			break
		}
	}
	text = strings.ToValidUTF8(strings.Join(kept, "; "), "?")
	if runes := []rune(text); len(runes) > 300 {
		text = string(runes[:300]) + "…"
	}
	return text
}
