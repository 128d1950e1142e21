package report_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluicerun/sluice/internal/report"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                      "plain",
		"a\nb\r\nc\td":               "a b  c d",
		"\x1b[31mred\x1b[0m":         "red",
		"\x1b]0;title\atext":         "text",
		"\x1b]8;;x\x1b\\link":        "link",
		"\x1b(Btext\x1b":             "text",
		"\x1b[31":                    "",
		"\x1b]0;open":                "",
		"bell\a nul\x00 del\x7f":     "bell nul del",
		"\u202egnp.exe\u2066":        "gnp.exe",
		"bad \xff utf-8":             "bad \uFFFD utf-8",
		"é… ✓":                       "é… ✓",
		"c1 \u009b31m":               "c1 31m",
		"blank at the end  ":         "blank at the end",
		"line\u2028separator\u0085x": "line separator x",
		"\u061ca\U000E0041b":         "ab",
	} {
		if got := report.Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"\x1b[", "\x1b]", "\x1b", "\x1b\x1b[[", "\x1b]\x1b", strings.Repeat("é", 1500), "\x1b[\xff", "\x1b\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := report.Clean(text)
		if !utf8.ValidString(got) || strings.IndexFunc(got, unicode.IsControl) >= 0 || len(got) > report.MaxLine {
			t.Errorf("Clean(%q) = %q", text, got)
		}
		if again := report.Clean(got); again != got {
			t.Errorf("cleaning twice: %q, then %q", got, again)
		}
	})
}

func TestCut(t *testing.T) {
	if got := report.Cut("short", 100); got != "short" {
		t.Errorf("got %q", got)
	}
	text := strings.Repeat("é", 100)
	for limit := 40; limit < 200; limit++ {
		got := report.Cut(text, limit)
		if len(got) > limit || !utf8.ValidString(got) || !strings.HasSuffix(got, " more bytes)") {
			t.Fatalf("limit %d: %q", limit, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0.0s", 0: "0.0s", 40 * time.Millisecond: "0.0s", 14249 * time.Millisecond: "14.2s", 59940 * time.Millisecond: "59.9s",
		59960 * time.Millisecond: "1m00s", time.Minute: "1m00s", 125 * time.Second: "2m05s", time.Hour - time.Second: "59m59s",
		time.Hour - time.Millisecond: "1h00m", 62 * time.Minute: "1h02m", 26 * time.Hour: "26h00m",
	} {
		if got := report.FormatDuration(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0", 1500 * time.Millisecond: "1.5", 1234567 * time.Microsecond: "1.235", time.Hour: "3600"} {
		got, err := json.Marshal(report.Seconds(d))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", d, got, err, want)
		}
		var back report.Seconds
		if err := json.Unmarshal(got, &back); err != nil || time.Duration(back).Round(time.Millisecond) != d.Round(time.Millisecond) {
			t.Errorf("%s: read back as %s, %v", d, time.Duration(back), err)
		}
	}
	var s report.Seconds
	if err := json.Unmarshal([]byte(`"1s"`), &s); err == nil {
		t.Error("text was read as seconds")
	}
}

// S10.7: a revision is the name, "@", the algorithm and the hash.
func TestShortRevision(t *testing.T) {
	for in, want := range map[string]string{
		"main@sha1:4f2c1d9a7be0f3c5d6e8a9b0c1d2e3f405162738": "main@4f2c1d9",
		"sha1:4f2c1d9a7be0f3c5d6e8a9b0c1d2e3f405162738":      "4f2c1d9",
		"4f2c1d9a7be0f3c5d6e8a9b0c1d2e3f405162738":           "4f2c1d9",
		"v1.2.3@sha256:0123456789abcdef":                     "v1.2.3@0123456",
		"main@sha1:***":                                      "main@***",
		"main":                                               "main",
		"":                                                   "",
	} {
		if got := report.ShortRevision(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestImageText(t *testing.T) {
	for _, tt := range [][3]string{
		{"ghcr.io/a/b:v1", "ghcr.io/a/b:v2", "ghcr.io/a/b v1 → v2"},
		{"", "ghcr.io/a/b:v2", "ghcr.io/a/b:v2 (new)"},
		{"reg:5000/a", "reg:5000/a:v2", "reg:5000/a → reg:5000/a:v2"},
		{"reg:5000/a:v1", "reg:5000/a:v2", "reg:5000/a v1 → v2"},
		{"a:v1", "b:v1", "a:v1 → b:v1"},
		{"a@sha256:01", "a@sha256:02", "a sha256:01 → sha256:02"},
	} {
		if got := report.ImageText(report.Image{Old: tt[0], New: tt[1]}); got != tt[2] {
			t.Errorf("%q to %q: got %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}

func TestRelationText(t *testing.T) {
	const previous = "main@sha1:91bb0e2c3d4e5f60718293a4b5c6d7e8f9001122"
	for _, tt := range []struct {
		c    report.Cluster
		want string
	}{
		{report.Cluster{}, "first run here"},
		{report.Cluster{Previous: previous, Relation: "same"}, "live: the same commit"},
		{report.Cluster{Previous: previous, Relation: "ahead", Ahead: 1}, "live: 91bb0e2, 1 commit ago"},
		{report.Cluster{Previous: previous, Relation: "behind", Behind: 2}, "live: 91bb0e2, 2 commits newer than this one"},
		{report.Cluster{Previous: previous, Relation: "diverged", Ahead: 1, Behind: 2}, "live: 91bb0e2, which has 2 commits that this one has not"},
		{report.Cluster{Previous: previous, Relation: "unknown"}, "live: 91bb0e2"},
	} {
		if got := report.RelationText(&tt.c); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.c, got, tt.want)
		}
	}
}
