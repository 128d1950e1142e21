package redact

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestMask(t *testing.T) {
	const key = "-----BEGIN KEY-----\nc2VjcmV0LWxpbmUtb25l\nc2VjcmV0LWxpbmUtdHdv\nend\n-----END KEY-----\n"
	for _, tt := range []struct {
		name    string
		learned []string
		text    string
		want    string
	}{
		{"plain", []string{"hunter22"}, "login hunter22 failed", "login *** failed"},
		{"inside a word", []string{"hunter22"}, "xhunter22y", "x***y"},
		{"twice", []string{"hunter22"}, "hunter22 hunter22", "*** ***"},
		{"adjacent places are one", []string{"hunter22"}, "hunter22hunter22", "***"},
		{"nothing learned", nil, "hunter22", "hunter22"},
		{"longer value wins", []string{"hunter22", "hunter22-extended"}, "hunter22-extended!", "***!"},
		{"overlapping values leave no rest", []string{"abcdefgh", "efghijkl"}, "abcdefghijkl", "***"},
		{"white space around", []string{"hunter22\n"}, "hunter22 ok", "*** ok"},
		{"base64", []string{"hunter22"}, "data: " + base64.StdEncoding.EncodeToString([]byte("hunter22")), "data: ***"},
		{"base64 of the value with its line end", []string{"hunter22\n"}, base64.StdEncoding.EncodeToString([]byte("hunter22\n")), "***"},
		{"JSON-escaped", []string{`pa"ss\wo<rd`}, `{"p":"pa\"ss\\wo<rd"}`, `{"p":"***"}`},
		{"JSON-escaped as Go does", []string{`pa"ss\wo<rd`}, `{"p":"pa\"ss\\wo\u003crd"}`, `{"p":"***"}`},
		{"Go-quoted", []string{"pass\tword\x01"}, fmt.Sprintf("invalid value %q", "pass\tword\x01"), `invalid value "***"`},
		{"query-escaped", []string{"pa ss&word"}, "?p=" + url.QueryEscape("pa ss&word"), "?p=***"},
		{"path-escaped", []string{"pa ss/word"}, url.PathEscape("pa ss/word"), "***"},
		{"lower-case escapes", []string{"pa/ss/word"}, "pa%2fss%2fword", "***"},
		{"line of a value", []string{key}, "log: c2VjcmV0LWxpbmUtdHdv", "log: ***"},
		{"whole value", []string{key}, "[" + key + "]", "[***]"},
		{"short line of a value", []string{key}, "the end is near", "the end is near"},
		{"password in a JSON document", []string{`{"auths":{"ghcr.io":{"username":"bot","password":"hunter22","auth":"Ym90Omh1bnRlcjIy"}}}`},
			"bot: hunter22, ghcr.io, Ym90Omh1bnRlcjIy", "bot: ***, ghcr.io, ***"},
		{"password in a URL value", []string{"postgres://grade:hunter22@db/grades"}, "auth failed for grade with hunter22", "auth failed for grade with ***"},
		{"too short", []string{"abc"}, "abc", "abc"},
		{"too common", []string{"true", "5432", "localhost", "-----"}, "true 5432 localhost -----", "true 5432 localhost -----"},
		{"a long number is a secret", []string{"123456"}, "pin 123456", "pin ***"},
		{"a mask that makes another value", []string{"ab***cd", "hunter22"}, "abhunter22cd", "***"},

		{"password in a URL", nil, "clone https://bot:tok/en@git.example.com/a/b.git failed", "clone https://***@git.example.com/a/b.git failed"},
		{"token as the user", nil, "https://ghp_abc@github.com/a/b", "https://***@github.com/a/b"},
		{"bare ssh user stays", nil, "ssh://git@github.com/a/b and git@github.com:a/b", "ssh://git@github.com/a/b and git@github.com:a/b"},
		{"digest is no user", nil, "oci://ghcr.io/a/b@sha256:0123", "oci://ghcr.io/a/b@sha256:0123"},
		{"port is no password", nil, "https://10.0.0.1:6443/api?x=a@b", "https://10.0.0.1:6443/api?x=a@b"},
		{"IPv6 host", nil, "https://[::1]:6443/a@b", "https://[::1]:6443/a@b"},
		{"secret parameter", nil, `get "https://h/x?name=a&X-Amz-Signature=0af&private_token=t"`, `get "https://h/x?name=a&X-Amz-Signature=***&private_token=***"`},
		{"two URLs", nil, "https://a:b@c, https://d:e@f", "https://***@c, https://***@f"},
		{"URL in a URL", nil, "https://proxy/?to=https://a:b@c", "https://proxy/?to=https://***@c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New()
			s.Learn(tt.learned...)
			if got := s.Mask(tt.text); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// Base64 of something that only contains the value must not show it either,
// whatever stands around it and whichever alphabet is used.
func TestMaskBase64AtEveryAlignment(t *testing.T) {
	const secret = "s3cr3t/pa??w0rd>~"
	s := New()
	s.Learn(secret)
	for before := range 7 {
		for after := range 7 {
			plain := strings.Repeat("x", before) + secret + strings.Repeat("y", after)
			for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
				encoded := encoding.EncodeToString([]byte(plain))
				masked := s.Mask(encoded)
				if !strings.Contains(masked, Mask) {
					t.Fatalf("%d bytes before, %d after: %q is not masked", before, after, encoded)
				}
				// What is left around the mask can tell at most the bits that
				// the first and the last group share with the neighbours.
				if rest := len(masked) - len(Mask); rest > (before*8)/6+(after*8)/6+8 {
					t.Errorf("%d bytes before, %d after: %q leaves %q", before, after, encoded, masked)
				}
			}
		}
	}
}

func TestPublicValuesStay(t *testing.T) {
	s := New()
	s.Public("grade-api")
	s.Learn("grade-api", "hunter22")
	if got, want := s.Mask("grade-api hunter22"), "grade-api ***"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOnLearnTellsEachValueOnce(t *testing.T) {
	s := New()
	var told []string
	s.OnLearn(func(v string) { told = append(told, v) })
	s.Learn("hunter22", "true", "hunter22\n", "hunter22", "https://u:inner-pw@h", "{\n  long enough: yes\n}\n")
	if got, want := strings.Join(told, "|"), "hunter22|https://u:inner-pw@h|inner-pw|long enough: yes"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := New()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				secret := fmt.Sprintf("secret-%d-%d", i, j)
				s.Learn(secret)
				if got := s.Mask(secret + "!"); got != "***!" {
					t.Errorf("%q became %q", secret, got)
				}
			}
		})
	}
	wg.Wait()
}

// What is learned does not come out again, for any value and any form, in any
// surroundings.
func FuzzMask(f *testing.F) {
	for _, seed := range [][3]string{
		{"hunter22", "a", "b"}, {"***a", "x", "y"}, {"aaaa", "aa", "aaa"}, {"a b\"c<&", "\\", "%"}, {"line one is long\nline two is long", "", ""},
		{"ab***", "hunter22", "***"}, {"://x:y@z", "http", "/"}, {"\xff\xfe\xfd\xfc", "\xff", "\xfc"}, {"x%2Fy%2fz", "%", "2"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		s := New()
		s.Learn(secret, before)
		quoted, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{
			secret, strings.Trim(string(quoted), `"`), strconv.Quote(secret), url.QueryEscape(secret),
			base64.StdEncoding.EncodeToString([]byte(secret)), base64.URLEncoding.EncodeToString([]byte(before + secret + after)),
		} {
			masked := s.Mask(before + form + after)
			for needle := range s.forms {
				if strings.Contains(masked, needle) {
					t.Fatalf("%q is still in %q", needle, masked)
				}
			}
		}
		if len(secret) >= 8 && !common(strings.TrimSpace(secret)) && len(strings.TrimSpace(secret)) >= 8 &&
			strings.Contains(s.Mask(secret), secret) {
			t.Fatalf("%q is not masked", secret)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	s := New()
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		v := make([]byte, 24)
		for i := range v {
			v[i] = byte('!' + r.IntN(90))
		}
		s.Learn(string(v))
	}
	const text = "Deployment/grade-api/grade-api: 1 of 3 updated replicas are available, waiting for rollout to finish"
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		s.Mask(text)
	}
}
