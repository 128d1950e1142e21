package inventory

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/flux"
)

// splitAt has inventories cut from a smaller size on.
func splitAt(t *testing.T, size int) {
	t.Helper()
	before := splitFrom
	splitFrom = size
	t.Cleanup(func() { splitFrom = before })
}

// scattered returns entries whose names do not compress.
func scattered(seed uint64, objects, length int) []Entry {
	source := rand.New(rand.NewPCG(seed, 2))
	entries := make([]Entry, objects)
	for i := range entries {
		name := make([]byte, length)
		for j := range name {
			name[j] = "abcdefghijklmnopqrstuvwxyz0123456789"[source.IntN(36)]
		}
		entries[i] = Entry{ID: "ns_" + string(name) + "__ConfigMap", Version: "v1"}
	}
	return entries
}

func TestSplitRecordRoundTrip(t *testing.T) {
	want := sample(0)
	want.Entries = scattered(1, 20000, 200)
	p, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.refs) < 3 || len(p.binary) != 0 || p.size() > 10<<10 || !strings.Contains(p.data[recordKey], `"schemaVersion": 3`) {
		t.Fatalf("%d parts beside a head of %d bytes:\n%s", len(p.refs), p.size(), p.data[recordKey])
	}
	for name, body := range p.parts {
		if len(body) > 900<<10 || !strings.HasPrefix(name, "sluice-part.flux-system.apps.") {
			t.Errorf("part %s has %d bytes", name, len(body))
		}
	}
	got, err := decodeRecord("x", p)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.parts, p.refs) {
		t.Errorf("parts %v, want %v", got.parts, p.refs)
	}
	got.parts = nil
	if !reflect.DeepEqual(got, want) {
		t.Error("read back it is not the same")
	}
	again, err := want.encode()
	if err != nil || !again.equal(p.data, p.binary) {
		t.Errorf("encoded twice it is not the same (%v)", err)
	}
}

// What is read back as less than what was written is an error, in whatever way it came to that.
func TestDamagedParts(t *testing.T) {
	splitAt(t, 48<<10)
	r := sample(0)
	r.Entries = scattered(3, 4000, 60)
	whole, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(whole.refs) < 3 {
		t.Fatalf("%d parts", len(whole.refs))
	}
	other := sample(0)
	other.Entries = scattered(4, 4000, 60)
	foreign, err := other.encode()
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return whole.refs[i].Name }
	for what, tt := range map[string]struct {
		change func(p *payload)
		want   string
	}{
		"missing":   {func(p *payload) { delete(p.parts, name(1)) }, fmt.Sprintf("its part 2 of %d, ConfigMap %q, is missing", len(whole.refs), name(1))},
		"none":      {func(p *payload) { p.parts = nil }, "is missing"},
		"truncated": {func(p *payload) { p.parts[name(1)] = p.parts[name(1)][:100] }, fmt.Sprintf("ConfigMap %q, does not hold what was written there", name(1))},
		"empty":     {func(p *payload) { p.parts[name(0)] = nil }, "does not hold what was written there"},
		"foreign":   {func(p *payload) { p.parts[name(0)] = foreign.parts[foreign.refs[0].Name] }, "does not hold what was written there"},
		"exchanged": {func(p *payload) { p.parts[name(0)], p.parts[name(1)] = p.parts[name(1)], p.parts[name(0)] }, "does not hold what was written there"},
		"one bit":   {func(p *payload) { p.parts[name(1)] = bytes.Clone(p.parts[name(1)]); p.parts[name(1)][7] ^= 1 }, "does not hold what was written there"},
		"names one less": {func(p *payload) {
			last := fmt.Sprintf(`"name": %q`, name(len(whole.refs)-1))
			head := p.data[recordKey]
			i := strings.LastIndex(head[:strings.Index(head, last)], ",")
			p.data[recordKey] = head[:i] + "\n  ]\n}"
		}, "unexpected EOF"},
		"an inventory besides": {func(p *payload) { p.data[entriesKey] = `{"entries":[]}` }, `"inventory.json" is there, and "record.json" names parts besides`},
		"no parts any more": {func(p *payload) {
			head := p.data[recordKey]
			p.data[recordKey] = head[:strings.Index(head, `,`+"\n"+`  "parts"`)] + "\n}"
		}, `neither "inventory.json" nor "inventory.json.gz" is there`},
	} {
		t.Run(what, func(t *testing.T) {
			p := payload{data: maps.Clone(whole.data), parts: maps.Clone(whole.parts)}
			tt.change(&p)
			r, err := decodeRecord("ConfigMap/a/b", p)
			var damaged *DamagedError
			if !errors.As(err, &damaged) || r != nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "ConfigMap/a/b is damaged: ") {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
			// A repair keeps what can be read of it, and never makes an empty one of a whole one.
			u := Unreadable{Object: "ConfigMap/a/b", ID: appsID, Err: err, payload: p, version: "7"}
			rebuilt, _ := u.Rebuild(rootID, []Entry{{ID: "ns_found__ConfigMap", Version: "v1"}})
			if !Keys(rebuilt.Entries)[Key{ID: "ns_found__ConfigMap"}] || len(Diff(rebuilt.Entries, append(slices.Clone(r0(t, whole)), Entry{ID: "ns_found__ConfigMap"}))) > 0 {
				t.Errorf("rebuilt with %d entries", len(rebuilt.Entries))
			}
			if (what == "missing" || what == "truncated" || what == "one bit") && len(rebuilt.Entries) < 50 {
				t.Errorf("the first part is in order, and of it are kept %d entries", len(rebuilt.Entries))
			}
			if _, err := rebuilt.encode(); err != nil {
				t.Error(err)
			}
		})
	}
}

// r0 are the entries of a record in order.
func r0(t *testing.T, p payload) []Entry {
	t.Helper()
	r, err := decodeRecord("x", p)
	if err != nil {
		t.Fatal(err)
	}
	return r.Entries
}

// bomb is compressed text that repeats to a size.
func bomb(t *testing.T, begin, repeat string, size int) []byte {
	t.Helper()
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	block := []byte(strings.Repeat(repeat, 1<<20/len(repeat)))
	_, err := zip.Write([]byte(begin))
	for written := 0; written < size && err == nil; written += len(block) {
		_, err = zip.Write(block)
	}
	if err := errors.Join(err, zip.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// A record that somebody has made explode is an error, and costs little to find out.
func TestRecordThatExplodesIsBounded(t *testing.T) {
	head, err := sample(1).encode()
	if err != nil {
		t.Fatal(err)
	}
	for what, tt := range map[string]struct {
		packed []byte
		want   string
		most   uint64
	}{
		"entries":       {bomb(t, `{"entries":[`, `{"id":"a_b__C","v":"v1"},`, 80<<20), "more entries than the 1", 8 << 20},
		"empty entries": {bomb(t, `{"entries":[`, `{},`, 80<<20), "more entries than the 1", 8 << 20},
		"spaces":        {bomb(t, `{"entries":[`, "                ", 80<<20), "it holds more than 67108864 bytes", 400 << 20},
		"one name":      {bomb(t, `{"entries":[{"id":"`, "aaaaaaaaaaaaaaaa", 80<<20), "it holds more than 67108864 bytes", 400 << 20},
		"other fields":  {bomb(t, `{"x":"`, "aaaaaaaaaaaaaaaa", 80<<20), "it holds more than 67108864 bytes", 400 << 20},
	} {
		t.Run(what, func(t *testing.T) {
			p := payload{data: map[string]string{recordKey: head.data[recordKey]}, binary: map[string][]byte{entriesGzipID: tt.packed}}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decodeRecord("ConfigMap/a/b", p)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > tt.most {
				t.Errorf("it took %d MiB of memory", used>>20)
			}
		})
	}
	// What could not be read again is not written.
	r := sample(0)
	r.Entries = make([]Entry, 300000)
	long := strings.Repeat("a", 230)
	for i := range r.Entries {
		r.Entries[i] = Entry{ID: fmt.Sprintf("ns_%s%d__ConfigMap", long, i), Version: "v1"}
	}
	var tooLarge *TooLargeError
	if err := r.Check(); !errors.As(err, &tooLarge) || tooLarge.Objects != 300000 || tooLarge.Hint() == "" {
		t.Errorf("got %v", err)
	}
}

// What somebody has written into an inventory by hand: ids that no object can have are errors, an object that is named twice is one.
func TestEntriesByHand(t *testing.T) {
	for text, want := range map[string]string{
		`{"entries":[{"id":"ns_a__ConfigMap","v":"v1"},{"id":"ns_a__ConfigMap","v":"v1"}]}`:    "",
		`{"entries":[{"id":"ns_a__ConfigMap","v":"v1"},{"id":"ns_a__ConfigMap","v":"v2"}]}`:    "",
		`{"other":[{}],"entries":[{"id":"ns_a__ConfigMap","v":"v1"},{"id":"ns_b__X","v":""}]}`: "",
		`{"entries":[{"id":"../.._a__ConfigMap","v":"v1"},{"id":"ns_b__X","v":""}]}`:           `"../.." may not contain '/'`,
		`{"entries":[{"id":"ns_a/b__ConfigMap","v":"v1"},{"id":"ns_b__X","v":""}]}`:            `"a/b" may not contain '/'`,
		`{"entries":[{"id":"ns_..__ConfigMap","v":"v1"},{"id":"ns_b__X","v":""}]}`:             `".." may not be '..'`,
		`{"entries":[{"id":"ns_a%2fb__ConfigMap","v":"v1"},{"id":"ns_b__X","v":""}]}`:          `may not contain '%'`,
		`{"entries":[{"id":"ns_a__ConfigMap","v":"../v1"},{"id":"ns_b__X","v":""}]}`:           `"../v1" may not contain '/'`,
		`{"entries":[{"id":"ns_a_g/h_ConfigMap","v":"v1"},{"id":"ns_b__X","v":""}]}`:           `"g/h" may not contain '/'`,
		`{"entries":[{"id":"ns_a__ConfigMap","v":"v1"}]}`:                                      "has 1 entries where",
		`{"entries":[{"id":"a"},{"id":"b"}]}`:                                                  `"b" is not an inventory id`,
		`{"entries":[{},{}]}`:                                                                  `"" is not an inventory id`,
		`{"entries":[1,[]]}`:                                                                   "cannot unmarshal",
		`{"entries":{}}`:                                                                       `{ stands where "[" should`,
		`{"entries":null}`:                                                                     `stands where "[" should`,
		`{}`:                                                                                   `there is no "entries"`,
		`[]`:                                                                                   `[ stands where "{" should`,
		``:                                                                                     "unexpected EOF",
		`{"entries":[]}{"entries":[]}`:                                                         "more follows",
		`{"entries":[],"entries":[]}`:                                                          `"entries" is there twice`,
		`{"entries":[{"id":"ns_a__X","v":"v1","cluster":"Pod/a/b"},{"id":"ns_b__X","v":""}]}`: `"Pod/a/b" does not name a Secret`,
	} {
		p, err := sample(2).encode()
		if err != nil {
			t.Fatal(err)
		}
		p.data[entriesKey] = text
		r, err := decodeRecord("ConfigMap/a/b", p)
		switch {
		case want == "" && (err != nil || len(r.Entries) == 0 || len(Diff(r.Entries, nil)) != len(r.Entries)):
			t.Errorf("%s: %v, %+v", text, err, r)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `ConfigMap/a/b is damaged: "inventory.json": `)):
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// Names of parts: as long as a name may be, never another record's, and another for each state of the record that they replace.
func TestPartNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"a", "a.b", strings.Repeat("a", 200), strings.Repeat("a", 230), strings.Repeat("a", 253)} {
		for _, base := range []string{"", "1", "11"} {
			for _, digest := range []string{"sha256:1", "sha256:11"} {
				id := flux.ID{Namespace: "ns", Name: name}
				part, key := partName(id, base, digest), fmt.Sprint(id, base, "-", digest)
				if seen[part] != "" || len(part) > 253 || kindOf(part) != "" {
					t.Errorf("%s of %s is %q (%d), as is %s", digest, id, part, len(part), seen[part])
				}
				seen[part] = key
			}
		}
	}
}
