package inventory

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/flux"
)

// FuzzDecodeRecord: whatever a record's ConfigMaps hold, it is a record of which nothing is lost when it is saved again, or an error
// that names the ConfigMap and what to do.
func FuzzDecodeRecord(f *testing.F) {
	small, err := sample(2).encode()
	if err != nil {
		f.Fatal(err)
	}
	add := func(head, entries string, packed []byte, cut uint16) { f.Add(head, entries, packed, cut) }
	add(small.data[recordKey], small.data[entriesKey], nil, 0)
	for _, text := range []string{"", "{", `{"entries":[]}`, `{"entries":[{"id":"a_b__C","v":"v1"},{"id":"a_b__C","v":"v2"}]}`, `{"entries":[{"id":"../.._b__C"},{}]}`,
		`{"entries":[{"id":"a_b__C","v":"v1","cluster":"Secret/a/b"},{"id":"_system__x_rbac.authorization.k8s.io_ClusterRole"}]}`} {
		add(small.data[recordKey], text, nil, 0)
	}
	for _, head := range []string{"", "{}", `{"schemaVersion":1}`, `{"schemaVersion":-1}`, `{"schemaVersion":99,"toolVersion":"v9"}`, `{"schemaVersion":"1"}`,
		`{"schemaVersion":1,"id":"a/b","root":"c/d","objects":-1}`, `{"schemaVersion":1,"id":"a/b","root":"c/d","timeout":"-1h","history":[{}]}`,
		`{"schemaVersion":3,"id":"a/b","root":"c/d","objects":1,"parts":[{"name":"kube-root-ca.crt","digest":"sha256:"},{}]}`,
		strings.Replace(small.data[recordKey], `"objects": 2`, `"objects": 2000000000`, 1)} {
		add(head, small.data[entriesKey], nil, 0)
	}
	body := pack(f, []byte(small.data[entriesKey]))
	add(small.data[recordKey], "", body, 0)
	add(small.data[recordKey], "", body[:len(body)-3], 0)
	add(small.data[recordKey], "", pack(f, bytes.Repeat([]byte(" "), 64<<10)), 0)
	add(small.data[recordKey], "", []byte{0x1f, 0x8b}, 0)
	for _, cut := range []uint16{1, 20, 60000} {
		add(small.data[recordKey], "", body, cut)
	}
	f.Fuzz(func(t *testing.T, head, entries string, packed []byte, cut uint16) {
		p := payload{data: map[string]string{recordKey: head}}
		if entries != "" {
			p.data[entriesKey] = entries
		}
		if len(packed) > 0 && cut == 0 {
			p.binary = map[string][]byte{entriesGzipID: packed}
		}
		if len(packed) > 0 && cut > 0 {
			// The head names the parts, if it can be read so far.
			at := int(cut) % len(packed)
			p.parts = map[string][]byte{"one": packed[:at], "two": packed[at:]}
			names := `{"parts":[{"name":"one","digest":"` + digestOf(packed[:at]) + `"},{"name":"two","digest":"` + digestOf(packed[at:]) + `"}],`
			p.data[recordKey] = strings.Replace(head, "{", names, 1)
		}
		r, err := decodeRecord("ConfigMap/a/b", p)
		if err != nil {
			var damaged *DamagedError
			var newer *NewerError
			if r != nil || !errors.As(err, &damaged) && !errors.As(err, &newer) || !strings.HasPrefix(err.Error(), "ConfigMap/a/b ") {
				t.Fatalf("%v, %v", r, err)
			}
			if damaged != nil && damaged.Hint() == "" || newer != nil && newer.Hint() == "" {
				t.Errorf("no hint with %v", err)
			}
			// A repair never fails for what it finds.
			u := Unreadable{Object: "ConfigMap/a/b", ID: appsID, Err: err, payload: p}
			rebuilt, _ := u.Rebuild(rootID, nil)
			if rebuilt.ID != appsID || rebuilt.Root != rootID {
				t.Errorf("rebuilt as %s of %s", rebuilt.ID, rebuilt.Root)
			}
			for _, e := range rebuilt.Entries {
				if _, err := e.Ref(); err != nil {
					t.Error(err)
				}
			}
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatalf("it cannot be saved again: %v", err)
		}
		back, err := decodeRecord("ConfigMap/a/b", again)
		if err != nil {
			t.Fatalf("it cannot be read again: %v", err)
		}
		if !slices.Equal(back.Entries, r.Entries) || back.statement() != r.statement() || back.ID != r.ID || back.Root != r.Root || back.Revision != r.Revision {
			t.Errorf("saved again it says\n%s\nand not\n%s", again.data[recordKey], head)
		}
	})
}

func pack(t testing.TB, body []byte) []byte {
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// FuzzDecodeRoot: the same for the record of a root, and what it confirms of others.
func FuzzDecodeRoot(f *testing.F) {
	root := &Root{ID: rootID, Path: "clusters/production", URL: "https://example.com/repo", Nodes: []flux.ID{appsID, rootID}, Updated: moment}
	root.Begin(Run{Revision: "main@sha1:aa", Commit: "aa", Started: moment, RunURL: "https://ci/1", Actor: "ada"})
	root.End(Ready, moment.Add(time.Minute))
	root.Confirmed = map[flux.ID]Confirmation{appsID: {Base: moment, Revision: "main@sha1:bb", Updated: moment, Total: 3, Took: time.Second}}
	p, err := root.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.data[recordKey], p.data[confirmedKey], []byte(nil))
	for _, confirmed := range []string{"{", `{"groups":[{"kustomizations":{"apps":1}}]}`, `{"groups":[{"kustomizations":{"a/b":-1}},{"kustomizations":{"a/b":9223372036854775807}}]}`,
		`{"groups":[{"base":"no"}]}`, `{"groups":null}`, "[]"} {
		f.Add(p.data[recordKey], confirmed, []byte(nil))
	}
	for _, head := range []string{"", "{}", `{"schemaVersion":1,"id":"a"}`, `{"schemaVersion":1,"id":"a/b","nodes":["c"]}`, `{"schemaVersion":7}`, `{"schemaVersion":1,"id":"a/b","started":{"started":"x"}}`} {
		f.Add(head, "", []byte(nil))
	}
	f.Add(p.data[recordKey], "", pack(f, []byte(p.data[confirmedKey])))
	f.Add(p.data[recordKey], "", []byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, head, confirmed string, packed []byte) {
		p := payload{data: map[string]string{recordKey: head}}
		if confirmed != "" {
			p.data[confirmedKey] = confirmed
		}
		if len(packed) > 0 {
			p.binary = map[string][]byte{confirmedGzipID: packed}
		}
		r, err := decodeRoot("ConfigMap/a/b", p)
		if err != nil {
			var damaged *DamagedError
			var newer *NewerError
			if r != nil || !errors.As(err, &damaged) && !errors.As(err, &newer) || !strings.HasPrefix(err.Error(), "ConfigMap/a/b ") {
				t.Fatalf("%v, %v", r, err)
			}
			u := &Unreadable{Object: "ConfigMap/a/b", Kind: KindRoot, ID: rootID, Root: rootID, payload: p}
			if rebuilt := RebuildRoot(rootID, u, nil); rebuilt.ID != rootID {
				t.Errorf("rebuilt as %s", rebuilt.ID)
			}
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatalf("it cannot be saved again: %v", err)
		}
		back, err := decodeRoot("ConfigMap/a/b", again)
		if err != nil {
			t.Fatalf("it cannot be read again: %v", err)
		}
		if back.ID != r.ID || back.Path != r.Path || len(back.Nodes) != len(r.Nodes) || len(back.Confirmed) != len(r.Confirmed) || len(back.History) != len(r.History) {
			t.Errorf("saved again it says\n%s\nand not\n%s", again.data[recordKey], head)
		}
	})
}

// FuzzReadEntries: an inventory is read entry by entry; that comes to the same as reading it at once, for all that are whole.
func FuzzReadEntries(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"entries":[]}`, `{"entries":[{"id":"a_b__C","v":"v1"}]}`, `{"entries":[{"id":"a_b__C"},{"id":"a_b__C"}]} `, `{"entries":[{}]}`,
		`{"x":{"entries":[1]},"entries":[{"id":"_a_b_C"}]}`, `{"entries":[[[[[[[[]]]]]]]]}`, `{"entries":null}`, `{"entries":[`, "\xff"} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, text []byte, objects int) {
		entries, err := readEntries(bytes.NewReader(text), objects)
		for _, e := range entries {
			ref, refErr := e.Ref()
			if refErr != nil || ref.Name == "" || strings.ContainsAny(ref.Namespace+ref.Name+ref.Group+ref.Kind+ref.Version, "/%") {
				t.Errorf("%+v is among the entries (%v)", ref, refErr)
			}
		}
		if err == nil && (objects < 0 || len(entries) > objects || len(Diff(entries, nil)) != len(entries)) {
			t.Errorf("%d entries of %d", len(entries), objects)
		}
		if errors.Is(err, io.EOF) {
			t.Error("an end is told as if it were none")
		}
	})
}
