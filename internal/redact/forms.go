package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// large is the size in bytes from which a value is masked only as it stands,
// by lines and as plain base64: the other forms of a keystore of a megabyte
// would cost more memory than the rest of the run.
const large = 16 << 10

// minCore is the shortest piece of base64 that is masked, in characters.
// Shorter ones are found in ordinary words.
const minCore = 6

// words are values of Secrets that are settings. To mask them would ruin the
// report, and who knows them knows nothing.
var words = map[string]bool{
	"true": true, "false": true, "null": true, "none": true, "nil": true, "yes": true, "no": true, "on": true, "off": true,
	"enabled": true, "disabled": true, "enable": true, "disable": true, "default": true, "auto": true, "always": true, "never": true,
	"localhost": true, "127.0.0.1": true, "0.0.0.0": true, "http": true, "https": true, "info": true, "debug": true, "warn": true, "error": true,
}

// common reports whether a value without white space around it cannot be
// masked safely.
func common(v string) bool {
	if len(v) < minValue || words[strings.ToLower(v)] {
		return true
	}
	digits, ruler := true, true
	for i := range len(v) {
		digits = digits && v[i] >= '0' && v[i] <= '9'
		ruler = ruler && v[i] == v[0]
	}
	if digits {
		return len(v) < 6
	}
	return ruler && strings.ContainsRune("-=_*#.~+/ ", rune(v[0]))
}

// valueForms returns every text under which a value is to be found. Some may
// be shorter than what is masked; the caller leaves those out.
func valueForms(value string) []string {
	trimmed := strings.TrimSpace(value)
	forms := []string{value, trimmed,
		base64.StdEncoding.EncodeToString([]byte(value)), base64.RawStdEncoding.EncodeToString([]byte(trimmed))}
	if len(value) <= large {
		forms = append(forms, escapes(trimmed)...)
		forms = append(forms, cores(trimmed)...)
	}
	if !strings.ContainsAny(trimmed, "\n\r") {
		return forms
	}
	for _, line := range lines(trimmed) {
		forms = append(forms, line)
		if len(value) <= large {
			forms = append(forms, escapes(line)...)
			forms = append(forms, cores(line)...)
		}
	}
	return forms
}

// lines returns the lines of a value that are masked on their own. A value of
// one line is that line, whatever its length.
func lines(trimmed string) []string {
	if !strings.ContainsAny(trimmed, "\n\r") {
		return []string{trimmed}
	}
	var list []string
	for _, line := range strings.FieldsFunc(trimmed, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); len(line) >= minLine && !common(line) {
			list = append(list, line)
		}
	}
	return list
}

// escapes returns the value as it stands inside a JSON string (with and
// without HTML escaping), a Go-quoted one, XML and a URL.
func escapes(v string) []string {
	var forms []string
	unquote := func(quoted string) {
		forms = append(forms, strings.TrimSuffix(strings.TrimPrefix(quoted, `"`), `"`))
	}
	for _, html := range []bool{true, false} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		if e.Encode(v) == nil {
			unquote(strings.TrimSuffix(b.String(), "\n"))
		}
	}
	unquote(strconv.Quote(v))
	unquote(strconv.QuoteToASCII(v))
	var b bytes.Buffer
	if xml.EscapeText(&b, []byte(v)) == nil {
		forms = append(forms, b.String())
	}
	for _, escaped := range []string{url.QueryEscape(v), url.PathEscape(v), url.UserPassword("", v).String()[1:]} {
		forms = append(forms, escaped, lowerHex(escaped))
	}
	return forms
}

// lowerHex returns a URL-escaped text with its hexadecimal digits in lower
// case.
func lowerHex(escaped string) string {
	b := []byte(escaped)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

// cores returns the characters of a base64 text that depend on the value
// alone, for each place in a group of three bytes where the value can start.
// Whatever stands before or after the value, one of them is in the text.
func cores(v string) []string {
	var forms []string
	for shift := range 3 {
		padded := append(make([]byte, shift), v...)
		first := (shift*8 + 5) / 6       // the characters before share bits with what precedes
		last := (shift + len(v)) * 8 / 6 // the characters from here on, with what follows
		if last-first < minCore {
			continue
		}
		forms = append(forms,
			base64.RawStdEncoding.EncodeToString(padded)[first:last],
			base64.RawURLEncoding.EncodeToString(padded)[first:last])
	}
	return forms
}

// inside returns the secrets within a value that has a structure: the
// password of a URL and the secret fields of a JSON document.
func inside(value string) []string {
	trimmed := strings.TrimSpace(value)
	if strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		var document any
		if json.Unmarshal([]byte(trimmed), &document) == nil {
			return secretFields(document, nil)
		}
		return nil
	}
	if strings.Contains(trimmed, "://") && !strings.ContainsAny(trimmed, " \t\r\n") {
		if u, err := url.Parse(trimmed); err == nil && u.User != nil {
			if password, ok := u.User.Password(); ok {
				return []string{password}
			}
		}
	}
	return nil
}

// secretFields collects the strings under fields whose name says that they
// are secret, in an order that does not vary.
func secretFields(v any, found []string) []string {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			found = secretFields(item, found)
		}
	case map[string]any:
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		for _, key := range keys {
			if text, ok := v[key].(string); ok {
				if secretName(key) {
					found = append(found, text)
				}
				continue
			}
			found = secretFields(v[key], found)
		}
	}
	return found
}

// secretName reports whether a field or a query parameter of that name holds
// a secret. Names such as "private_key_id" hold none, but to mask one too
// many harms less than one too few.
func secretName(name string) bool {
	name = strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
	for _, part := range []string{"password", "passwd", "secret", "token", "auth", "privatekey", "apikey", "accesskey", "credential", "signature"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
