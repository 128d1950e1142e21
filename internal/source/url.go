package source

import (
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// location is where a repository is: a folder, or a server with a path.
type location struct {
	folder string // a local repository; then all else is empty

	scheme         string // https, http or ssh
	user, password string
	host, port     string // port may be empty: the scheme's default
	path           string // as the server is asked for it: with a leading slash, except in the scp form
}

// scpForm is [user@]host:path, where no slash comes before the colon.
var scpForm = regexp.MustCompile(`^(?:([^@/:\s]+)@)?(\[[0-9a-fA-F:.]+\]|[^@/:\s\[\]]+):(.+)$`)

// locate understands what a user calls a repository.
func locate(repo string) (location, error) {
	if repo == "" {
		return location{folder: "."}, nil
	}
	if strings.Contains(repo, "://") {
		return parseURL(repo)
	}
	if _, err := os.Stat(repo); err == nil || filepath.IsAbs(repo) || filepath.VolumeName(repo) != "" {
		return location{folder: repo}, nil
	}
	if l, ok := parseSCP(repo); ok {
		return l, nil
	}
	if forgottenScheme.MatchString(repo) {
		return location{}, failf(ErrInvalidURL, "begin it with https://", "the repository URL …@%s lacks its scheme", afterUser(repo))
	}
	return location{folder: repo}, nil
}

// forgottenScheme is user:password@host, which must not be taken, or shown, as a folder or as the host "user".
var forgottenScheme = regexp.MustCompile(`^[^/@]*:[^/]*@`)

// afterUser is a text without what may be credentials in it.
func afterUser(raw string) string { return raw[strings.LastIndex(raw, "@")+1:] }

func parseSCP(repo string) (location, bool) {
	m := scpForm.FindStringSubmatch(repo)
	if m == nil || forgottenScheme.MatchString(repo) || !validHost(strings.Trim(m[2], "[]")) || path.Clean("/"+m[3]) == "/" {
		return location{}, false
	}
	return location{scheme: "ssh", user: m[1], host: strings.ToLower(strings.Trim(m[2], "[]")), path: m[3]}, true
}

var hostName = regexp.MustCompile(`^[\p{L}\p{N}_][\p{L}\p{N}._-]*$`)

func validHost(host string) bool { return hostName.MatchString(host) || net.ParseIP(host) != nil }

func parseURL(raw string) (location, error) {
	const remedy = "give a folder, or a URL that begins with https://, ssh:// or file://, or git@host:path"
	u, err := url.Parse(raw)
	if err != nil {
		// url.Error repeats the text, and with it a password.
		scheme, _, _ := strings.Cut(raw, "://")
		return location{}, failf(ErrInvalidURL, remedy, "the repository URL (%s://…) cannot be read: it holds characters that must be percent-encoded, or a bad port", scheme)
	}
	l := location{scheme: strings.ToLower(u.Scheme), host: strings.ToLower(u.Hostname()), port: u.Port(), path: u.Path}
	if u.User != nil {
		l.user = u.User.Username()
		l.password, _ = u.User.Password()
	}
	switch l.scheme {
	case "file":
		if l.host != "" && l.host != "localhost" {
			return location{}, failf(ErrInvalidURL, "write file:///path with three slashes", "the repository URL %q names the host %q, but a file URL is a path on this machine", l, l.host)
		}
		if u.Path == "" {
			return location{}, failf(ErrInvalidURL, "write file:///path with three slashes", "the repository URL %q lacks a path", l)
		}
		return location{folder: filepath.FromSlash(u.Path)}, nil
	case "git+ssh", "ssh+git":
		l.scheme = "ssh"
	case "ssh", "http", "https":
	default:
		return location{}, failf(ErrInvalidURL, remedy, "the repository URL %q has the scheme %q, which is not supported", l, l.scheme)
	}
	if !validHost(l.host) || path.Clean("/"+l.path) == "/" {
		return location{}, failf(ErrInvalidURL, remedy, "the repository URL %q lacks a usable host or a path", l)
	}
	return l, nil
}

// String is the location without its credentials, for people.
func (l location) String() string {
	if l.folder != "" {
		return l.folder
	}
	if l.scheme == "ssh" && !strings.HasPrefix(l.path, "/") {
		return l.sshUser() + "@" + l.host + ":" + l.path
	}
	u := url.URL{Scheme: l.scheme, Host: l.hostPort(), Path: l.path}
	if l.scheme == "ssh" {
		u.User = url.User(l.sshUser())
	}
	return u.String()
}

func (l location) sshUser() string {
	if l.user == "" {
		return "git" // S10.10
	}
	return l.user
}

func (l location) hostPort() string {
	if l.port != "" {
		return net.JoinHostPort(l.host, l.port)
	}
	if strings.Contains(l.host, ":") {
		return "[" + l.host + "]"
	}
	return l.host
}

// isLoopback is true for names that cannot leave this machine.
func (l location) isLoopback() bool {
	if l.host == "localhost" {
		return true
	}
	ip := net.ParseIP(l.host)
	return ip != nil && ip.IsLoopback()
}

// hostAliases are second names of forges, for networks that let only port 443 through.
var hostAliases = map[string]string{
	"ssh.github.com":       "github.com",
	"altssh.gitlab.com":    "gitlab.com",
	"altssh.bitbucket.org": "bitbucket.org",
	"www.github.com":       "github.com",
}

var azureSSH = regexp.MustCompile(`^/v3/([^/]+)/([^/]+)/([^/]+)$`)

// NormalizeURL brings the ways to write one repository's URL to one form, so that two can be compared: scheme, user,
// password, query, a trailing .git or slash, the host's case and default ports go; an SSH port goes always, because it says
// nothing about the port of the same forge's HTTPS. The result reads like https://host/path, or file:///path. The path's case
// stays: most servers heed it. Texts without a scheme are read as the scp form git@host:path; a folder is an error.
//
// For ssh://git@GitHub.com:22/o/r.git, git@github.com:o/r and https://token@github.com/o/r/ it is https://github.com/o/r.
func NormalizeURL(raw string) (string, error) {
	raw = strings.TrimSpace(raw)
	var l location
	if strings.Contains(raw, "://") {
		var err error
		if l, err = parseURL(raw); err != nil {
			return "", err
		}
	} else {
		var ok bool
		if l, ok = parseSCP(raw); !ok {
			return "", failf(ErrInvalidURL, "", "%q is no URL of a repository", afterUser(raw))
		}
	}
	return l.normal(), nil
}

func (l location) normal() string {
	if l.folder != "" {
		u := url.URL{Scheme: "file", Path: plainPath(filepath.ToSlash(l.folder))}
		return u.String()
	}
	p := plainPath(l.path)
	host, port := l.host, l.port
	if alias, ok := hostAliases[host]; ok {
		host, port = alias, ""
	}
	if l.scheme == "ssh" || l.scheme == "https" && port == "443" || l.scheme == "http" && port == "80" {
		port = ""
	}
	if m := azureSSH.FindStringSubmatch(p); m != nil && host == "ssh.dev.azure.com" {
		host, p = "dev.azure.com", "/"+m[1]+"/"+m[2]+"/_git/"+m[3]
	}
	u := url.URL{Scheme: "https", Host: location{host: host, port: port}.hostPort(), Path: p}
	return u.String()
}

// plainPath is a path without what servers do not mind: doubled slashes, .git, /.git.
func plainPath(p string) string {
	p = path.Clean("/" + p)
	for {
		shorter := path.Clean("/" + strings.TrimSuffix(p, ".git"))
		if shorter == p || shorter == "/" {
			return p
		}
		p = shorter
	}
}
