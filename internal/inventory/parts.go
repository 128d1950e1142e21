package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluicerun/sluice/internal/flux"
)

// An inventory that is too large for one ConfigMap is cut into parts, each in one of its own. The record's own ConfigMap, the
// head, names them by digest. All that makes a record of several objects as atomic as one of one object follows from four rules:
//
//   - The parts are written first, the head, which names them, last and against the version that was read. A reader of one LIST,
//     which shows one state of the cluster, sees the old record or the new one.
//   - A part never changes. Its name has in it which head was to be replaced and what the part holds, so it is never that of a part
//     that somebody else is about to name or to remove. Only parts that the replaced head names are used again.
//   - What no head names is removed afterwards, by who holds the lock of the root; see Sweep.
//   - A head whose parts are not exactly those that it names is damaged.

// splitFrom is the most that a record's ConfigMap may hold before its inventory is cut, and the size of a part. It leaves room below
// MaxStored. Only tests change it.
var splitFrom = 900 << 10

// partKey is what a part's ConfigMap has under binaryData.
const partKey = "inventory.json.gz.part"

// partRef names a part of an inventory.
type partRef struct {
	// Name is its ConfigMap's, Digest that of its content, "sha256:<hex>".
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

func digestOf(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// split cuts a compressed inventory. Parts that the stored record has already keep their names.
func (r *Record) split(packed []byte) ([]partRef, map[string][]byte) {
	known := map[string]string{}
	for _, ref := range r.parts {
		known[ref.Digest] = ref.Name
	}
	var refs []partRef
	parts := map[string][]byte{}
	for len(packed) > 0 {
		body := packed[:min(len(packed), splitFrom)]
		packed = packed[len(body):]
		ref := partRef{Digest: digestOf(body)}
		if ref.Name = known[ref.Digest]; ref.Name == "" {
			ref.Name = partName(r.ID, r.stored, ref.Digest)
		}
		refs = append(refs, ref)
		parts[ref.Name] = body
	}
	return refs, parts
}

// partName is never a RecordName, nor a RootName, nor that of a part of another Kustomization.
func partName(id flux.ID, base, digest string) string {
	sum := sha256.Sum256([]byte(base + "\x00" + digest))
	suffix := "." + hex.EncodeToString(sum[:10])
	name := objectName("sluice-part", id) + suffix
	if len(name) > validation.DNS1123SubdomainMaxLength {
		name = hashedName("sluice-part", id) + suffix
	}
	return name
}

// join puts the parts of an inventory together again.
func (p payload) join(refs []partRef) ([]byte, error) {
	var whole []byte
	var errs []error
	for i, ref := range refs {
		body, ok := p.parts[ref.Name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("its part %d of %d, ConfigMap %q, is missing", i+1, len(refs), ref.Name))
		case digestOf(body) != ref.Digest:
			errs = append(errs, fmt.Errorf("its part %d of %d, ConfigMap %q, does not hold what was written there", i+1, len(refs), ref.Name))
		case len(errs) > 0: // what follows a gap is of no use
		case len(whole)+len(body) > maxInflated:
			errs = append(errs, fmt.Errorf("its parts hold more than %d bytes", maxInflated))
		default:
			whole = append(whole, body...)
		}
	}
	return whole, errors.Join(errs...)
}

// decodeEntries returns the inventory of a record, of which the head names these parts and says that it has so many objects. With
// an error it returns what can be read of it all the same.
func decodeEntries(p payload, refs []partRef, objects int) ([]Entry, error) {
	body, key, err := p.open(entriesKey, entriesGzipID)
	if err != nil {
		return nil, err
	}
	var broken error
	switch {
	case body != nil && len(refs) > 0:
		return nil, fmt.Errorf("%q is there, and %q names parts besides", key, recordKey)
	case len(refs) > 0:
		var packed []byte
		packed, broken = p.join(refs)
		key = "inventory.json.gz in parts"
		if body, err = inflate(packed); err != nil {
			return nil, errors.Join(broken, fmt.Errorf("%q: %w", key, err))
		}
	case body == nil:
		return nil, fmt.Errorf("neither %q nor %q is there", entriesKey, entriesGzipID)
	}
	entries, err := readEntries(body, objects)
	switch {
	case broken != nil: // that says why it ends too early
		return entries, broken
	case err != nil:
		err = fmt.Errorf("%q: %w", key, err)
	}
	return entries, err
}

// readEntries reads the JSON of an inventory entry by entry, so that one which holds something else is found out before it fills
// the memory. With an error it returns the entries that are in order.
func readEntries(from io.Reader, objects int) ([]Entry, error) {
	var entries []Entry
	var errs []error
	found := 0
	take := func(text json.RawMessage) error {
		if found++; found > objects {
			return fmt.Errorf("has more entries than the %d that %q says", objects, recordKey)
		}
		var e Entry
		err := json.Unmarshal(text, &e)
		if err == nil {
			_, err = e.Ref()
		}
		switch {
		case err == nil:
			entries = append(entries, e)
		case len(errs) < 3:
			errs = append(errs, err)
		case len(errs) == 3:
			errs = append(errs, errors.New("and more"))
		}
		return nil
	}
	err := eachEntry(json.NewDecoder(brimful{from}), take)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && found != objects {
		err = fmt.Errorf("has %d entries where %q says %d", found, recordKey, objects)
	}
	if err != nil {
		errs = append([]error{err}, errs...)
	}
	// An object that is named twice is one object.
	return Union(nil, entries), errors.Join(errs...)
}

// brimful fills what it is given. A decoder looks again at all it has when more comes, for as long as a value, or the space before
// it, has no end; it makes room for twice as much each time, so it looks as rarely as can be if all the room is filled.
type brimful struct{ from io.Reader }

func (b brimful) Read(into []byte) (n int, err error) {
	for n < len(into) && err == nil {
		var more int
		more, err = b.from.Read(into[n:])
		n += more
	}
	return n, err
}

// eachEntry calls take with each element of the list "entries", and makes sure that nothing follows. It is io.EOF if the text ends
// too early between two values.
func eachEntry(d *json.Decoder, take func(json.RawMessage) error) error {
	if err := delimiter(d, '{'); err != nil {
		return err
	}
	seen := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if key != "entries" {
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return err
			}
			continue
		}
		if seen {
			return errors.New(`"entries" is there twice`)
		}
		seen = true
		if err := delimiter(d, '['); err != nil {
			return err
		}
		for d.More() {
			var text json.RawMessage
			if err := d.Decode(&text); err != nil {
				return err
			}
			if err := take(text); err != nil {
				return err
			}
		}
		if err := delimiter(d, ']'); err != nil {
			return err
		}
	}
	if err := delimiter(d, '}'); err != nil {
		return err
	}
	if !seen {
		return errors.New(`there is no "entries"`)
	}
	switch _, err := d.Token(); {
	case err == nil:
		return errors.New("more follows than an inventory")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func delimiter(d *json.Decoder, want json.Delim) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("%v stands where %q should", token, want.String())
	}
	return nil
}
