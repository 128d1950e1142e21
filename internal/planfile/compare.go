package planfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Difference is one way in which a plan is not the saved one.
type Difference struct {
	// Kustomization and Object say what it is about; both are empty for what
	// the whole plan is of.
	Kustomization, Object string
	// Text is one sentence.
	Text string
}

// Compare returns what is different now: nothing if a run would do exactly what
// was saved. Both plans must have been made with the same salt.
//
// If the plans are of different things, such as two commits, that is all there
// is to say: what follows from it is left out. The order is that of the fields
// of [File], by name where they are maps, and in the order of the run below.
func Compare(saved, now *File) []Difference {
	c := &comparison{}
	if saved.Cluster != now.Cluster {
		// Digests of two clusters cannot be compared.
		c.say("", "", "the plan is for another cluster%s", ofContexts(saved.Context, now.Context))
		c.subject(saved, now)
		return c.found
	}
	c.subject(saved, now)
	c.variables(saved.Variables, now.Variables)
	if len(c.found) > 0 {
		return c.found
	}
	c.kustomizations(saved.Kustomizations, now.Kustomizations)
	c.prune(saved.Prune, now.Prune)
	return c.found
}

type comparison struct{ found []Difference }

func (c *comparison) say(kustomization, object, format string, args ...any) {
	c.found = append(c.found, Difference{kustomization, object, fmt.Sprintf(format, args...)})
}

func ofContexts(saved, now string) string {
	if saved == now || saved == "" || now == "" {
		return ""
	}
	return fmt.Sprintf(": it was %s, now it is %s", saved, now)
}

// subject compares what the plans are of.
func (c *comparison) subject(saved, now *File) {
	for _, part := range []struct{ what, saved, now string }{
		{"the version of sluice", saved.Sluice, now.Sluice},
		{"the root Kustomization", saved.Root, now.Root},
		{"the entry folder", saved.Path, now.Path},
		{"the repository", saved.Repository, now.Repository},
		{"the commit", saved.Commit, now.Commit},
		{"the commit that was applied last", saved.Live, now.Live},
		{"the commit that was healthy last", saved.Healthy, now.Healthy},
	} {
		if part.saved != part.now {
			c.say("", "", "%s was %s in the plan, now it is %s", part.what, orNone(part.saved), orNone(part.now))
		}
	}
	for _, name := range names(saved.Options, now.Options) {
		if was, is := saved.Options[name], now.Options[name]; was != is {
			c.say("", "", "--%s was %s in the plan, now it is %s", name, orNone(was), orNone(is))
		}
	}
}

func (c *comparison) variables(saved, now map[string]string) {
	for _, name := range names(saved, now) {
		was, before := saved[name]
		is, after := now[name]
		switch {
		case before && !after:
			c.say("", "", "the variable %s was given with --var or --vars-file in the plan, now it is not", name)
		case !before && after:
			c.say("", "", "the variable %s was not given in the plan, now it is", name)
		case was != is:
			c.say("", "", "the variable %s has another value than in the plan", name)
		}
	}
}

func (c *comparison) kustomizations(saved, now []Kustomization) {
	before := map[string]Kustomization{}
	for _, k := range saved {
		before[k.ID] = k
	}
	for _, is := range now {
		was, known := before[is.ID]
		delete(before, is.ID)
		if !known {
			c.say(is.ID, "", "%s was not in the plan", is.ID)
			continue
		}
		c.kustomization(was, is)
	}
	for _, was := range saved {
		if _, gone := before[was.ID]; gone {
			c.say(was.ID, "", "%s was in the plan, and is no part of the run now", was.ID)
		}
	}
}

func (c *comparison) kustomization(was, is Kustomization) {
	switch {
	case was.State != is.State:
		c.say(is.ID, "", "%s was %s, now it is %s", is.ID, stateWords[was.State], stateWords[is.State])
		return
	case was.Reason != is.Reason:
		c.say(is.ID, "", "%s was %s since it %s, now it %s", is.ID, stateWords[was.State], was.Reason, is.Reason)
	}
	if was.Spec != is.Spec {
		c.say(is.ID, "", "%s: its spec is another than in the plan", is.ID)
	}
	if was.Built != is.Built {
		text := "%s: it is built to something else than in the plan"
		if was.Revision != is.Revision {
			text += fmt.Sprintf(": its source was at %s, now it is at %s", was.Revision, is.Revision)
		} else {
			text += ": a variable that the cluster holds has changed, or a base that is fetched"
		}
		c.say(is.ID, "", text, is.ID)
	}
	if was.Cluster != is.Cluster {
		c.say(is.ID, "", "%s: its spec.kubeConfig leads to another cluster than in the plan", is.ID)
	}
	c.objects(is.ID, "left as it is", was.Changes, is.Changes)
}

func (c *comparison) prune(was, is []Object) {
	c.objects("", "left alone", was, is)
}

var stateWords = map[State]string{
	Apply: "to be applied", Later: "to be built when its turn comes", Suspended: "suspended", Excluded: "left out",
}

// verbs say what is done to an object.
var verbs = map[string]string{
	"create": "created", "configure": "configured", "recreate": "deleted and made again", "skipped": "skipped",
	"later": "judged when its turn comes", "delete": "deleted", "kept": "kept",
}

func verb(action string) string {
	if v, ok := verbs[action]; ok {
		return v
	}
	return action
}

// objects compares what is done to objects; otherwise says what is done to those
// that a plan does not list.
func (c *comparison) objects(kustomization, otherwise string, saved, now []Object) {
	type id struct{ kustomization, object, apiVersion, cluster string }
	of := func(o Object) id { return id{o.Kustomization, o.Object, o.APIVersion, o.Cluster} }
	before := map[id]Object{}
	for _, o := range saved {
		before[of(o)] = o
	}
	say := func(o Object, format string, args ...any) {
		owner := kustomization
		if owner == "" {
			owner = o.Kustomization
		}
		c.say(owner, o.Object, "%s of %s "+format, append([]any{o.Object, owner}, args...)...)
	}
	for _, is := range now {
		was, known := before[of(is)]
		delete(before, of(is))
		switch {
		case !known:
			say(is, "was to be %s, now it would be %s%s", otherwise, verb(is.Action), details(is))
		case was.Action != is.Action:
			say(is, "was to be %s, now it would be %s%s%s", verb(was.Action), verb(is.Action), details(is), since(was, is))
		case !slices.Equal(was.Fields, is.Fields):
			say(is, "was to be %s%s, now %s would change%s", verb(was.Action), details(was), list(is.Fields), since(was, is))
		case was.Values != is.Values:
			say(is, "was to be %s%s: the values are others now%s", verb(was.Action), details(was), since(was, is))
		case was.Reason != is.Reason:
			say(is, "was to be %s (%s), now for another reason: %s", verb(was.Action), orNone(was.Reason), orNone(is.Reason))
		}
	}
	for _, was := range saved {
		if _, gone := before[of(was)]; gone {
			say(was, "was to be %s, now it would be %s", verb(was.Action), otherwise)
		}
	}
}

// since tells whether the live object has changed.
func since(was, is Object) string {
	switch {
	case was.ResourceVersion == is.ResourceVersion:
		return ""
	case was.ResourceVersion == "":
		return "; it did not exist then"
	case is.ResourceVersion == "":
		return "; it does not exist any more"
	}
	return "; somebody has changed it since"
}

// details say which fields an action is about, or else why it is done.
func details(o Object) string {
	switch {
	case len(o.Fields) > 0:
		return " in " + list(o.Fields)
	case o.Reason != "":
		return " (" + o.Reason + ")"
	}
	return ""
}

// most is how many fields are named.
const most = 5

func list(fields []string) string {
	switch {
	case len(fields) == 0:
		return "no field"
	case len(fields) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(fields[:most], ", "), len(fields)-most)
	}
	return strings.Join(fields, ", ")
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// names are the keys of both, sorted.
func names(a, b map[string]string) []string {
	all := map[string]bool{}
	for _, m := range []map[string]string{a, b} {
		for name := range m {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
