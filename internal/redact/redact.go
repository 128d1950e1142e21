// Package redact keeps secret values out of everything that is shown.
//
// A Set learns values while the run comes across them: data of Secrets,
// decrypted files, variables read from Secrets. Its Sink masks whole events
// before they are handed to the reports, so no report can forget to. Masking
// a stream of bytes instead would let a secret through that is split over two
// writes.
//
// What is masked, for each value:
//   - the value, and the value without white space around it;
//   - each of its lines, if it has several (a private key, a config file);
//   - as it stands in JSON, in a Go-quoted string, in XML and in a URL;
//   - base64, standard and URL alphabet, also where the value is only a part
//     of what was encoded (all three alignments);
//   - the passwords inside, if the value is a URL or a JSON document such as
//     .dockerconfigjson.
//
// Credentials in URLs ("https://user:password@host") are masked whether or
// not they were learned.
//
// What is not masked: values that are too short or too common to mask without
// ruining the text (see Learn), and pieces of a value that something else cut.
package redact

import (
	"sort"
	"strings"
	"sync"
)

// Mask is what stands in the place of a secret.
const Mask = "***"

// minValue and minLine are the shortest value and the shortest line of a
// longer value that are masked, in bytes. minValue must be longer than Mask,
// so that masking always shortens the text and comes to an end; and needles
// are looked up by their first four bytes.
const (
	minValue = 4
	minLine  = 8
)

// Set is a growing set of secret values. The zero value is not usable; make
// one with New. All methods are safe for concurrent use.
type Set struct {
	mu     sync.RWMutex
	values map[string]bool
	public map[string]bool
	// needles holds every form of every value by its first four bytes, the
	// longest first; forms is the same as a set.
	needles map[[4]byte][]string
	forms   map[string]bool
	learned []func(value string)
}

// New returns an empty set.
func New() *Set {
	return &Set{
		values:  map[string]bool{},
		public:  map[string]bool{},
		needles: map[[4]byte][]string{},
		forms:   map[string]bool{},
	}
}

// Public names values that everybody can read anyway, such as the names of
// Kustomizations, namespaces and objects in Git: a value equal to one of them
// is not masked. Without it a Secret that holds the user name "grade-api"
// would blank out that word all over the report. Call it before Learn; what
// was learned already stays masked.
func (s *Set) Public(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		s.public[v] = true
	}
}

// OnLearn calls f with each value that is learned from now on, in its plain
// form and once. It is for handing values to a CI system's own masking. Of a
// value with several lines f gets those lines that are long enough to be
// masked alone: GitHub's runner masks each line of what it is given, however
// short, and a "}" would ruin the log. f runs in the goroutine that calls
// Learn and must not call the Set.
func (s *Set) OnLearn(f func(value string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned = append(s.learned, f)
}

// Learn adds values, decoded (not the base64 of a Secret's data). It ignores
// what cannot be masked without ruining the text and protects nothing: values
// of less than 4 bytes, whole numbers of less than 6 digits (ports,
// replicas), rulers such as "-----", and the few words that are settings
// rather than secrets (true, false, null, none, default, localhost, …). Of
// values with several lines, lines of less than 8 bytes are masked only as a
// part of the whole.
//
// Events that were emitted before a value was learned are not masked, so
// learn a value where it is first read.
func (s *Set) Learn(values ...string) {
	s.mu.Lock()
	var fresh []string
	for _, v := range values {
		fresh = append(fresh, s.learn(v)...)
	}
	callbacks := s.learned
	s.mu.Unlock()
	for _, f := range callbacks {
		for _, v := range fresh {
			f(v)
		}
	}
}

// learn adds one value and what is inside it, and returns what is new. The
// lock is held.
func (s *Set) learn(value string) []string {
	if s.values[value] {
		return nil
	}
	s.values[value] = true
	var fresh []string
	if trimmed := strings.TrimSpace(value); !common(trimmed) && !s.public[trimmed] {
		for _, line := range lines(trimmed) {
			if !s.forms[line] {
				fresh = append(fresh, line)
			}
		}
		for _, form := range valueForms(value) {
			s.add(form)
		}
	}
	for _, inner := range inside(value) {
		fresh = append(fresh, s.learn(inner)...)
	}
	return fresh
}

// add adds one needle. The lock is held.
func (s *Set) add(form string) {
	if len(form) < minValue || s.forms[form] {
		return
	}
	s.forms[form] = true
	key := [4]byte([]byte(form[:4]))
	list := s.needles[key]
	i := sort.Search(len(list), func(i int) bool { return len(list[i]) <= len(form) })
	list = append(list, "")
	copy(list[i+1:], list[i:])
	list[i] = form
	s.needles[key] = list
}

// Mask returns the text with every learned value in any of its forms, and
// credentials in URLs, replaced by "***". It returns the text itself if there
// is nothing to mask.
func (s *Set) Mask(text string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	text = maskURLs(text)
	// Once more over what came out, because a mask next to what surrounds
	// it can be a form of a value again. Every round that changes
	// something shortens the text, so this ends.
	for {
		masked := s.maskOnce(text)
		if masked == text {
			return text
		}
		text = masked
	}
}

// maskOnce replaces every place where a form of a value starts, taking places
// that overlap or touch as one, so that no rest of a longer value stays.
func (s *Set) maskOnce(text string) string {
	if len(s.needles) == 0 || len(text) < minValue {
		return text
	}
	var b strings.Builder
	copied := 0          // text before it is in b
	start, end := -1, -1 // the place found last, not in b yet
	for i := 0; i+minValue <= len(text); i++ {
		n := s.longestAt(text, i)
		if n == 0 {
			continue
		}
		if i > end {
			if start >= 0 {
				b.WriteString(text[copied:start])
				b.WriteString(Mask)
				copied = end
			}
			start, end = i, i+n
		} else {
			end = max(end, i+n)
		}
	}
	if start < 0 {
		return text
	}
	b.WriteString(text[copied:start])
	b.WriteString(Mask)
	b.WriteString(text[end:])
	return b.String()
}

// longestAt returns the length of the longest form that starts at i, or 0.
func (s *Set) longestAt(text string, i int) int {
	for _, form := range s.needles[[4]byte([]byte(text[i:i+4]))] {
		if strings.HasPrefix(text[i:], form) {
			return len(form)
		}
	}
	return 0
}
