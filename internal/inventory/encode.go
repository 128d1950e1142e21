package inventory

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/sluicerun/sluice/internal/flux"
)

// SchemaVersion is the latest version of the stored form that this build knows. It reads this one and all before it, and writes
// the first that can say what there is to say: an older sluice must not take what is in another cluster to be gone.
const (
	SchemaVersion = schemaParts
	schemaFirst   = 1
	// schemaClusters has entries that name their cluster.
	schemaClusters = 2
	// schemaParts has the inventory in other ConfigMaps.
	schemaParts = 3
)

// Keys of a record's ConfigMap. The head is always readable with kubectl; the inventory is compressed when it is large, into
// binaryData, where the API carries it as base64.
const (
	recordKey     = "record.json"
	entriesKey    = "inventory.json"
	entriesGzipID = "inventory.json.gz"
	// confirmedKey is what the record of a root has beside its head, compressed likewise. A sluice that does not know it reads the
	// records it is about as they were saved last, which makes them older and no less true, and drops it when it saves the root.
	confirmedKey    = "confirmed.json"
	confirmedGzipID = "confirmed.json.gz"
)

const (
	// MaxStored is the most that the keys and values of a ConfigMap may have together: 1 MiB, a limit of the API server.
	MaxStored = 1 << 20
	// compressFrom is the size from which an inventory is compressed: about 300 objects.
	compressFrom = 32 << 10
	// maxInflated bounds what a record may grow to when read, so that a damaged one cannot use up memory. What would be larger is
	// not written. It is 600,000 objects with names of the usual length, 100,000 with the longest that there can be.
	maxInflated = 64 << 20
)

// payload is what a ConfigMap holds, and what others hold for it.
type payload struct {
	data   map[string]string
	binary map[string][]byte
	// refs name the parts of the inventory, in their order, if it is split; parts holds them by name. Of a record that is read it
	// holds what there is, which may be less, and the parts of others.
	refs  []partRef
	parts map[string][]byte
}

// size is what counts for the limit of a ConfigMap: that of the head.
func (p payload) size() int {
	n := 0
	for k, v := range p.data {
		n += len(k) + len(v)
	}
	for k, v := range p.binary {
		n += len(k) + len(v)
	}
	return n
}

func (p payload) equal(data map[string]string, binary map[string][]byte) bool {
	if len(p.data) != len(data) || len(p.binary) != len(binary) {
		return false
	}
	for k, v := range p.data {
		if w, ok := data[k]; !ok || v != w {
			return false
		}
	}
	for k, v := range p.binary {
		if w, ok := binary[k]; !ok || !bytes.Equal(v, w) {
			return false
		}
	}
	return true
}

type header struct {
	SchemaVersion int    `json:"schemaVersion"`
	ToolVersion   string `json:"toolVersion,omitempty"`
}

// recordJSON is a Kustomization's record, in all versions so far.
type recordJSON struct {
	header
	ID             string       `json:"id"`
	Root           string       `json:"root"`
	Parent         string       `json:"parent,omitempty"`
	Path           string       `json:"path"`
	Source         sourceJSON   `json:"source"`
	Revision       string       `json:"revision,omitempty"`
	OriginRevision string       `json:"originRevision,omitempty"`
	Digest         string       `json:"digest,omitempty"`
	Result         Result       `json:"result,omitempty"`
	Objects        int          `json:"objects"`
	Prune          bool         `json:"prune"`
	DeletionPolicy string       `json:"deletionPolicy,omitempty"`
	Suspended      bool         `json:"suspended,omitempty"`
	DependsOn      []string     `json:"dependsOn,omitempty"`
	ServiceAccount string       `json:"serviceAccountName,omitempty"`
	Timeout        string       `json:"timeout,omitempty"`
	Marker         string       `json:"marker,omitempty"`
	Updated        time.Time    `json:"updated,omitzero"`
	History        meta.History `json:"history,omitempty"`
	// Parts name the ConfigMaps that hold the inventory, if this one does not.
	Parts []partRef `json:"parts,omitempty"`
}

type sourceJSON struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

type entriesJSON struct {
	Entries []Entry `json:"entries"`
}

// rootJSON is a root's record, in all versions so far.
type rootJSON struct {
	header
	ID       string    `json:"id"`
	Path     string    `json:"path"`
	URL      string    `json:"url,omitempty"`
	Started  Run       `json:"started,omitzero"`
	Finished Run       `json:"finished,omitzero"`
	Nodes    []string  `json:"nodes,omitempty"`
	Updated  time.Time `json:"updated,omitzero"`
	History  []Run     `json:"history,omitempty"`
}

// Check reports whether the record can be stored, before anything is written: a *TooLargeError if not.
func (r *Record) Check() error {
	_, err := r.encode()
	return err
}

// Check reports whether the root can be stored, before anything is written.
func (r *Root) Check() error {
	_, err := r.encode()
	return err
}

// schema is the version of the stored form that the record needs.
func (r *Record) schema() int {
	for _, e := range r.Entries {
		if !e.Cluster.IsOwn() {
			return schemaClusters
		}
	}
	return schemaFirst
}

// head is the record as it is stored, without its entries.
func (r *Record) head() recordJSON {
	w := recordJSON{
		header: header{SchemaVersion: r.schema(), ToolVersion: r.ToolVersion},
		ID:     r.ID.String(), Root: r.Root.String(), Parent: idString(r.Parent), Path: r.Path,
		Source:   sourceJSON(r.Source),
		Revision: r.Revision, OriginRevision: r.OriginRevision, Digest: r.Digest, Result: r.Result, Objects: len(r.Entries),
		Prune: r.Prune, DeletionPolicy: r.DeletionPolicy, Suspended: r.Suspended, DependsOn: idStrings(r.DependsOn),
		ServiceAccount: r.ServiceAccount, Marker: r.Marker, Updated: r.Updated.UTC(), History: r.History,
	}
	if r.Timeout != 0 {
		w.Timeout = r.Timeout.String()
	}
	if len(w.History) > HistorySize {
		w.History = w.History[:HistorySize]
	}
	return w
}

func (r *Record) encode() (payload, error) {
	w := r.head()
	head, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return payload{}, fmt.Errorf("record of Kustomization %q: %w", r.ID, err)
	}
	p := payload{data: map[string]string{recordKey: string(head)}}
	body, err := json.Marshal(entriesJSON{Entries: append([]Entry{}, r.Entries...)})
	if err != nil {
		return payload{}, fmt.Errorf("inventory of Kustomization %q: %w", r.ID, err)
	}
	if len(body) > maxInflated {
		return payload{}, &TooLargeError{ID: r.ID, Objects: len(r.Entries), Size: len(body), Limit: maxInflated}
	}
	if err := p.put(entriesKey, entriesGzipID, body); err != nil {
		return payload{}, fmt.Errorf("inventory of Kustomization %q: %w", r.ID, err)
	}
	if packed, ok := p.binary[entriesGzipID]; ok && p.size() > splitFrom {
		p.binary = nil
		p.refs, p.parts = r.split(packed)
		w.SchemaVersion, w.Parts = schemaParts, p.refs
		if head, err = json.MarshalIndent(w, "", "  "); err != nil {
			return payload{}, fmt.Errorf("record of Kustomization %q: %w", r.ID, err)
		}
		p.data[recordKey] = string(head)
	}
	if size := p.size(); size > MaxStored {
		return payload{}, &TooLargeError{ID: r.ID, Objects: len(r.Entries), Size: size, Limit: MaxStored}
	}
	return p, nil
}

// put adds a piece, compressed under a key of its own if it is large.
func (p *payload) put(key, packedKey string, body []byte) error {
	if len(body) < compressFrom {
		p.data[key] = string(body)
		return nil
	}
	var packed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err == nil {
		_, err = zip.Write(body)
	}
	if err == nil {
		err = zip.Close()
	}
	if err != nil {
		return fmt.Errorf("compress it: %w", err)
	}
	p.binary = map[string][]byte{packedKey: packed.Bytes()}
	return nil
}

// open returns what put added, nil if nothing, and the key that it is under.
func (p payload) open(key, packedKey string) (io.Reader, string, error) {
	plain, isPlain := p.data[key]
	packed, isPacked := p.binary[packedKey]
	switch {
	case isPlain && isPacked:
		return nil, "", fmt.Errorf("%q and %q are both there", key, packedKey)
	case isPlain:
		return strings.NewReader(plain), key, nil
	case isPacked:
		r, err := inflate(packed)
		if err != nil {
			return nil, "", fmt.Errorf("%q: %w", packedKey, err)
		}
		return r, packedKey, nil
	}
	return nil, "", nil
}

// inflate opens what is compressed. Reading more than maxInflated of it is an error.
func inflate(packed []byte) (io.Reader, error) {
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return &bounded{r: zip, left: maxInflated}, nil
}

type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	// One more than is left tells the end from too much.
	n, err := b.r.Read(p[:min(len(p), b.left+1)])
	if n > b.left {
		return 0, fmt.Errorf("it holds more than %d bytes", maxInflated)
	}
	b.left -= n
	return n, err
}

func decodeRecord(object string, p payload) (*Record, error) {
	var w recordJSON
	if err := decodeHead(object, p, &w); err != nil {
		return nil, err
	}
	r := &Record{
		Path: w.Path, Source: flux.Source(w.Source),
		Revision: w.Revision, OriginRevision: w.OriginRevision, Digest: w.Digest, Result: w.Result,
		Prune: w.Prune, DeletionPolicy: w.DeletionPolicy, Suspended: w.Suspended, ServiceAccount: w.ServiceAccount,
		Marker: w.Marker, Updated: w.Updated, ToolVersion: w.ToolVersion, History: w.History,
	}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	r.ID, err = flux.ParseID(w.ID)
	note(err)
	r.Root, err = flux.ParseID(w.Root)
	note(err)
	if w.Parent != "" {
		r.Parent, err = flux.ParseID(w.Parent)
		note(err)
	}
	r.DependsOn, err = parseIDs(w.DependsOn)
	note(err)
	if w.Timeout != "" {
		r.Timeout, err = time.ParseDuration(w.Timeout)
		note(err)
	}
	r.Entries, err = decodeEntries(p, w.Parts, w.Objects)
	note(err)
	r.parts = w.Parts
	if len(errs) > 0 {
		return nil, &DamagedError{Object: object, Err: errors.Join(errs...)}
	}
	return r, nil
}

func (r *Root) encode() (payload, error) {
	w := rootJSON{
		header: header{SchemaVersion: schemaFirst, ToolVersion: r.ToolVersion},
		ID:     r.ID.String(), Path: r.Path, URL: r.URL, Started: r.Started, Finished: r.Finished,
		Updated: r.Updated.UTC(), History: r.History,
	}
	w.Nodes = idStrings(r.Nodes)
	sort.Strings(w.Nodes)
	head, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return payload{}, fmt.Errorf("record of root %q: %w", r.ID, err)
	}
	p := payload{data: map[string]string{recordKey: string(head)}}
	if len(r.Confirmed) > 0 {
		body, err := encodeConfirmed(r.Confirmed)
		if err == nil {
			err = p.put(confirmedKey, confirmedGzipID, body)
		}
		if err != nil {
			return payload{}, fmt.Errorf("record of root %q: %w", r.ID, err)
		}
	}
	if size := p.size(); size > MaxStored {
		return payload{}, &TooLargeError{ID: r.ID, Root: true, Objects: len(r.Nodes), Size: size, Limit: MaxStored}
	}
	return p, nil
}

func decodeRoot(object string, p payload) (*Root, error) {
	var w rootJSON
	if err := decodeHead(object, p, &w); err != nil {
		return nil, err
	}
	r := &Root{Path: w.Path, URL: w.URL, Started: w.Started, Finished: w.Finished,
		Updated: w.Updated, ToolVersion: w.ToolVersion, History: w.History}
	var err1, err2 error
	r.ID, err1 = flux.ParseID(w.ID)
	r.Nodes, err2 = parseIDs(w.Nodes)
	body, key, err3 := p.open(confirmedKey, confirmedGzipID)
	if body != nil {
		if r.Confirmed, err3 = decodeConfirmed(body); err3 != nil {
			err3 = fmt.Errorf("%q: %w", key, err3)
		}
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, &DamagedError{Object: object, Err: err}
	}
	return r, nil
}

// decodeHead reads the version before anything else: a later form may not even parse as this one.
func decodeHead(object string, p payload, into any) error {
	text, ok := p.data[recordKey]
	if !ok {
		return &DamagedError{Object: object, Err: fmt.Errorf("the key %q is missing", recordKey)}
	}
	var h header
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return &DamagedError{Object: object, Err: fmt.Errorf("%q: %w", recordKey, err)}
	}
	if h.SchemaVersion > SchemaVersion {
		return &NewerError{Object: object, Schema: h.SchemaVersion, ToolVersion: h.ToolVersion}
	}
	if h.SchemaVersion < 1 {
		return &DamagedError{Object: object, Err: fmt.Errorf("%q has no schemaVersion", recordKey)}
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return &DamagedError{Object: object, Err: fmt.Errorf("%q: %w", recordKey, err)}
	}
	return nil
}

func idString(id flux.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func idStrings(ids []flux.ID) []string {
	var out []string
	for _, id := range ids {
		out = append(out, id.String())
	}
	return out
}

func parseIDs(texts []string) ([]flux.ID, error) {
	var ids []flux.ID
	for _, t := range texts {
		id, err := flux.ParseID(t)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
