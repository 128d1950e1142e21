package redact

import (
	"regexp"
	"strings"
)

// endOfURL are the characters that end a URL in running text.
const endOfURL = " \t\r\n\"'`<>|\\"

// queryParameter finds name and value of each parameter of a query.
var queryParameter = regexp.MustCompile("([?&])([^=&?#\\s]+)=([^&#\\s\"'`<>|\\\\]+)")

// maskURLs replaces the credentials of URLs: the user information where it
// holds a password, or where the scheme has no use for a bare user name
// ("https://token@host"; "ssh://git@host" stays), and the values of query
// parameters whose name says that they are secret. A text without "://" costs
// one look.
func maskURLs(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	var b strings.Builder
	rest := text
	for {
		i := strings.Index(rest, "://")
		if i < 0 {
			b.WriteString(rest)
			return b.String()
		}
		scheme := rest[schemeStart(rest[:i]):i]
		b.WriteString(rest[:i+3])
		rest = rest[i+3:]
		end := strings.IndexAny(rest, endOfURL)
		if end < 0 {
			end = len(rest)
		}
		// A URL can hold another one, in its query; that one gets its own turn.
		if inner := strings.Index(rest[:end], "://"); inner >= 0 {
			end = schemeStart(rest[:inner])
		}
		b.WriteString(maskQuery(maskUser(scheme, rest[:end])))
		rest = rest[end:]
	}
}

// schemeStart returns where the scheme at the end of the text begins.
func schemeStart(text string) int {
	return strings.LastIndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '-' && r != '.'
	}) + 1
}

// maskUser masks the user information of what follows "://".
func maskUser(scheme, rest string) string {
	authority := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = i
	}
	at := strings.LastIndexByte(rest[:authority], '@')
	if at < 0 {
		// A password with a raw "/", "?" or "#" reaches beyond what looks
		// like the host. A real host has a number after its colon.
		_, port, ok := strings.Cut(rest[:authority], ":")
		if !ok || strings.HasPrefix(rest, "[") || strings.Trim(port, "0123456789") == "" {
			return rest
		}
		if at = strings.LastIndexByte(rest, '@'); at < 0 {
			return rest
		}
	}
	user := rest[:at]
	bare := strings.HasPrefix(strings.ToLower(scheme), "http")
	if user == "" || user == Mask || !strings.Contains(user, ":") && !bare {
		return rest
	}
	return Mask + rest[at:]
}

// maskQuery masks the secret parameters of a query.
func maskQuery(rest string) string {
	if !strings.ContainsRune(rest, '?') {
		return rest
	}
	return queryParameter.ReplaceAllStringFunc(rest, func(parameter string) string {
		m := queryParameter.FindStringSubmatch(parameter)
		if !secretName(m[2]) {
			return parameter
		}
		return m[1] + m[2] + "=" + Mask
	})
}
