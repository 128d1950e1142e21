// Package planfile is a plan in a file: what `plan --out` saves, and what `run
// --plan` holds its own plan against before it writes anything.
//
// The file says what would be done, not how: a run with a plan goes the whole
// way of planning itself, and begins only if it comes to the same result. So a
// file that somebody has changed can keep a run from beginning, and can never
// make it do anything.
//
// A file holds no value of a field, a variable or a Secret. Where values have to
// be compared it has digests of them, under a key that is made of a random salt
// and of the identity of the cluster; the salt is in the file, the identity is
// not. So who has only the file cannot even try values out.
package planfile

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Format marks a file as a plan, and Version is that of its form. A field that
// is added, or means something else, makes another version: a program that does
// not know all of a plan cannot say that it is the same.
const (
	Format  = "sluice-plan"
	Version = 1
)

// File is a plan in a file. Lists are sorted, or in the order of the run.
type File struct {
	// Format is always "sluice-plan", Version that of the form of this file.
	Format  string `json:"format"`
	Version int    `json:"version"`
	// Sluice is the version that made the plan, Created when it did.
	Sluice  string    `json:"sluice"`
	Created time.Time `json:"created"`
	// Salt is random; digests are made with it.
	Salt string `json:"salt"`
	// Cluster is the digest of the cluster's identity, Context its name in the
	// kubeconfig, for people; it is not compared.
	Cluster string `json:"cluster"`
	Context string `json:"context,omitempty"`
	// Root is the root Kustomization, "namespace/name", Path the entry folder.
	Root string `json:"root"`
	Path string `json:"path"`
	// Repository is the URL without credentials, empty for a local repository
	// without a remote; Commit is the full hash; Revision is Flux's form of it,
	// for people; it is not compared, since it names the branch.
	Repository string `json:"repository,omitempty"`
	Commit     string `json:"commit"`
	Revision   string `json:"revision"`
	// Live is the commit that a run began to apply last, and Healthy the one
	// that a run ended well with last; empty if none did.
	Live    string `json:"live,omitempty"`
	Healthy string `json:"healthy,omitempty"`
	// Options are the flags that decide on the result, by name, as they were set.
	Options map[string]string `json:"options"`
	// Variables are digests of the values of --var and --vars-file, by name.
	Variables map[string]string `json:"variables,omitempty"`
	// Kustomizations are all of the run, in its order.
	Kustomizations []Kustomization `json:"kustomizations"`
	// Prune is what pruning would do, in its order.
	Prune []Object `json:"prune,omitempty"`
	// Digest is of all the rest, "sha256:<hex>". It tells damage, no more: it
	// is no signature.
	Digest string `json:"digest"`
}

// State is what a run would do with a Kustomization.
type State string

// The states.
const (
	Apply State = "apply"
	// Later: it can only be built when its turn comes, so nobody knows yet
	// what is in it.
	Later     State = "later"
	Suspended State = "suspended"
	Excluded  State = "excluded"
)

// Kustomization is what a run would do with one.
type Kustomization struct {
	// ID is "namespace/name".
	ID    string `json:"id"`
	State State  `json:"state"`
	// Reason says why it is Later.
	Reason string `json:"reason,omitempty"`
	// Revision is that of its source, in Flux's form; for people.
	Revision string `json:"revision,omitempty"`
	// Spec is the digest of its spec, Built that of what it is built to, empty
	// if it is not. Cluster is that of the cluster of its objects if it is not
	// the run's own.
	Spec    string `json:"spec"`
	Built   string `json:"built,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	// Unchanged counts the objects that stay as they are; Changes are all
	// others, in the order of the build.
	Unchanged int      `json:"unchanged"`
	Changes   []Object `json:"changes,omitempty"`
}

// Object is what would be done to one object.
type Object struct {
	// Kustomization is whose it is, only in Prune.
	Kustomization string `json:"kustomization,omitempty"`
	// Object is "Kind/namespace/name" or "Kind/name", APIVersion its group and
	// version. Cluster is set for what is pruned in another cluster than the
	// run's own, and names the object that says how to reach it.
	Object     string `json:"object"`
	APIVersion string `json:"apiVersion"`
	Cluster    string `json:"cluster,omitempty"`
	// Action is as in reports: create, configure, recreate, skipped, later,
	// delete or kept; Reason explains it.
	Action string `json:"action"`
	Reason string `json:"reason,omitempty"`
	// Fields are the paths of the fields that would change, sorted; Values is
	// the digest of what they are and what they would be. Those of a Secret are
	// left out of it.
	Fields []string `json:"fields,omitempty"`
	Values string   `json:"values,omitempty"`
	// ResourceVersion is that of the live object that this was found out from,
	// empty if there is none. It is not compared: it also changes by what has
	// nothing to do with the plan.
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

// Salt returns a new random salt.
func Salt() string {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails, by its contract
	return hex.EncodeToString(salt)
}

// Key makes digests.
type Key []byte

// NewKey returns the key for a salt and the identity of a cluster.
func NewKey(salt, identity string) Key {
	mac := hmac.New(sha256.New, []byte(salt))
	mac.Write([]byte(identity))
	return mac.Sum(nil)
}

// Digest returns the digest of some parts, of which each counts by itself.
func (k Key) Digest(parts ...string) string {
	mac := hmac.New(sha256.New, k)
	for _, p := range parts {
		fmt.Fprintf(mac, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Encode writes a plan in the current form, and its digest into it.
func (f *File) Encode() ([]byte, error) {
	sealed := *f
	sealed.Format, sealed.Version = Format, Version
	var err error
	if sealed.Digest, err = sealed.sum(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(sealed, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

func (f *File) sum() (string, error) {
	bare := *f
	bare.Digest = ""
	text, err := json.Marshal(bare)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(text)), nil
}

// FormError says why a file cannot be used as a plan.
type FormError struct{ text, hint string }

func (e *FormError) Error() string { return e.text }

// Hint says what to do.
func (e *FormError) Hint() string { return e.hint }

// Decode reads a plan. Its errors are of type [*FormError].
func Decode(text []byte) (*File, error) {
	const again = "save it again with sluice plan --out"
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) {
			return nil, &FormError{"is no plan of sluice", "give the file that sluice plan --out has written"}
		}
		return nil, &FormError{"is no whole JSON document: " + err.Error(), "it was cut off or damaged: " + again}
	}
	switch {
	case head.Format != Format:
		return nil, &FormError{"is no plan of sluice", "give the file that sluice plan --out has written"}
	case head.Version > Version:
		return nil, &FormError{fmt.Sprintf("is a plan of version %d, of which this sluice knows %d", head.Version, Version), "make plan and run with the same version of sluice"}
	case head.Version < Version:
		return nil, &FormError{fmt.Sprintf("is a plan of version %d, which is no longer known", head.Version), again}
	}
	f := &File{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, &FormError{"cannot be read: " + err.Error(), again}
	}
	sum, err := f.sum()
	if err != nil {
		return nil, &FormError{"cannot be read: " + err.Error(), again}
	}
	if sum != f.Digest {
		return nil, &FormError{"has been changed since it was saved: its digest is another", again}
	}
	return f, nil
}
