// Package schemas gets the types of kinds from a server's own OpenAPI v3, those
// of custom resources included: the types that the server itself merges with in
// a server-side apply.
//
// It fetches the index once and then one document for each group version that
// is asked for, and keeps of that only what the wanted kinds are made of: the
// document of the core group alone has 1.6 MB.
//
// What a server says here is for saving requests, so nothing is repeated or
// waited for long: whoever gets an error asks the server in another way.
package schemas

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// patience is how long a document may take.
const patience = 15 * time.Second

// Loader loads types. It is safe for concurrent use.
type Loader struct {
	client openapi.ClientWithContext

	mu sync.Mutex
	// documents are the index, nil before it was asked for. failed is why it
	// cannot be had.
	documents map[string]openapi.GroupVersionWithContext
	failed    error
}

// New returns a loader that asks by way of client, whose own limits and
// credentials apply. Nothing is asked yet.
func New(client rest.Interface) *Loader {
	return &Loader{client: openapi.NewClientWithContext(client)}
}

// Load returns the types of some kinds of a group version. It is an error if one
// of them is not described, and if the description cannot be made sense of.
func (l *Loader) Load(ctx context.Context, gv schema.GroupVersion, kinds []string) (managedfields.TypeConverter, error) {
	types, err := l.load(ctx, gv, kinds)
	if err != nil {
		return nil, fmt.Errorf("no schema of %s: %w", gv, err)
	}
	return types, nil
}

func (l *Loader) load(ctx context.Context, gv schema.GroupVersion, kinds []string) (managedfields.TypeConverter, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	documents, err := l.index(ctx)
	if err != nil {
		return nil, err
	}
	address := "apis/" + gv.String()
	if gv.Group == "" {
		address = "api/" + gv.Version
	}
	document, ok := documents[address]
	if !ok {
		return nil, fmt.Errorf("the OpenAPI of the server has no %s", address)
	}
	text, err := document.SchemaWithContext(ctx, "application/json")
	if err != nil {
		return nil, err
	}
	models, err := parse(text, gv, kinds)
	if err != nil {
		return nil, err
	}
	// The API server does not preserve unknown fields of any kind that has
	// a version of its own, unless the schema itself says so.
	return managedfields.NewTypeConverter(models, false)
}

// index asks for the addresses of the documents, once.
func (l *Loader) index(ctx context.Context) (map[string]openapi.GroupVersionWithContext, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.documents != nil || l.failed != nil {
		return l.documents, l.failed
	}
	documents, err := l.client.PathsWithContext(ctx)
	if err != nil && ctx.Err() == nil {
		l.failed = err // not if only this caller has given up
	}
	l.documents = documents
	return documents, err
}

// parse picks from a document what some kinds are made of.
func parse(text []byte, gv schema.GroupVersion, kinds []string) (map[string]*spec.Schema, error) {
	var document struct {
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("cannot read the OpenAPI document: %w", err)
	}
	all := document.Components.Schemas
	missing := map[string]bool{}
	for _, kind := range kinds {
		missing[kind] = true
	}
	models := map[string]*spec.Schema{}
	var open []string
	for name, raw := range all {
		kind, ok := kindOf(raw, gv)
		if !ok || !slices.Contains(kinds, kind) {
			continue
		}
		if !missing[kind] {
			return nil, fmt.Errorf("the OpenAPI document describes %s twice", kind)
		}
		missing[kind] = false
		open = append(open, name)
	}
	for _, kind := range kinds {
		if missing[kind] {
			return nil, fmt.Errorf("the OpenAPI document does not describe %s", kind)
		}
	}
	for len(open) > 0 {
		name := open[len(open)-1]
		open = open[:len(open)-1]
		if models[name] != nil {
			continue
		}
		raw, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("the OpenAPI document does not describe %s", name)
		}
		model := &spec.Schema{}
		if err := json.Unmarshal(raw, model); err != nil {
			return nil, fmt.Errorf("cannot read the description of %s: %w", name, err)
		}
		models[name] = model
		open = references(model, open)
	}
	return models, nil
}

// kindOf returns the kind that a model describes in a group version.
func kindOf(raw json.RawMessage, gv schema.GroupVersion) (string, bool) {
	var model struct {
		Kinds []schema.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
	}
	if err := json.Unmarshal(raw, &model); err != nil {
		return "", false // not one of a kind
	}
	for _, gvk := range model.Kinds {
		if gvk.GroupVersion() == gv {
			return gvk.Kind, true
		}
	}
	return "", false
}

// references adds the names of the models that a model refers to.
func references(s *spec.Schema, names []string) []string {
	if name := path.Base(s.Ref.String()); s.Ref.String() != "" {
		names = append(names, name)
	}
	for i := range s.AllOf {
		names = references(&s.AllOf[i], names)
	}
	for name := range s.Properties {
		property := s.Properties[name]
		names = references(&property, names)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		names = references(s.AdditionalProperties.Schema, names)
	}
	if s.Items != nil {
		if s.Items.Schema != nil {
			names = references(s.Items.Schema, names)
		}
		for i := range s.Items.Schemas {
			names = references(&s.Items.Schemas[i], names)
		}
	}
	return names
}
