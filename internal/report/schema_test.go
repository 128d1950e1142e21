package report_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

const (
	schemaPath = "../../docs/report.schema.json"
	docsPath   = "../../docs/reports.md"
)

// vocabularies are the types whose values are a closed set.
var vocabularies = map[reflect.Type][]string{
	reflect.TypeFor[report.Outcome](): words(report.Outcomes()),
	reflect.TypeFor[report.State]():   words(report.States()),
	reflect.TypeFor[event.Level]():    {"info", "warning"},
	reflect.TypeFor[event.Action](): {"create", "configure", "recreate", "delete", "later",
		"created", "configured", "recreated", "unchanged", "skipped", "deleted", "kept"},
	reflect.TypeFor[event.Result]():  {"ready", "failed", "unhealthy", "not-run", "suspended", "excluded", "cancelled", "planned", "valid", "destroyed"},
	reflect.TypeFor[event.Verdict](): {"live", "failed", "invalid", "refused", "unhealthy", "planned", "valid", "destroyed", "cancelled"},
}

func words[T ~string](list []T) []string {
	var out []string
	for _, w := range list {
		out = append(out, string(w))
	}
	return out
}

// object is a JSON object whose fields keep their order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", m.name)
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schema makes the schema of report.json from the types. strict forbids
// fields that it does not know; the published one allows them, since a later
// version may have more.
func schema(t *testing.T, comments map[string]string, strict bool) []byte {
	t.Helper()
	definitions := object{}
	seen := map[reflect.Type]bool{}
	var describe func(reflect.Type) object
	var structure func(reflect.Type) object
	describe = func(goType reflect.Type) object {
		switch {
		case goType == reflect.TypeFor[time.Time]():
			return object{{"type", "string"}, {"format", "date-time"}}
		case goType == reflect.TypeFor[report.Seconds]():
			return object{{"type", "number"}}
		case vocabularies[goType] != nil:
			return object{{"type", "string"}, {"enum", vocabularies[goType]}}
		}
		switch goType.Kind() {
		case reflect.String:
			return object{{"type", "string"}}
		case reflect.Bool:
			return object{{"type", "boolean"}}
		case reflect.Int:
			return object{{"type", "integer"}, {"minimum", 0}}
		case reflect.Slice:
			return object{{"type", "array"}, {"items", describe(goType.Elem())}}
		case reflect.Pointer:
			return describe(goType.Elem())
		case reflect.Struct:
			if !seen[goType] {
				seen[goType] = true
				definitions = append(definitions, member{goType.Name(), structure(goType)})
			}
			return object{{"$ref", "#/$defs/" + goType.Name()}}
		}
		t.Fatalf("no schema for %s", goType)
		return nil
	}
	structure = func(goType reflect.Type) object {
		var properties object
		required := []string{}
		for _, f := range reporttest.Describe(goType, comments) {
			if f.Doc == "" {
				t.Errorf("field %s of %s has no comment", f.Name, goType.Name())
			}
			property := append(object{{"description", f.Doc}}, describe(f.Go)...)
			if goType == reflect.TypeFor[report.Summary]() && f.Name == "version" {
				property = append(property, member{"const", report.Version})
			}
			properties = append(properties, member{f.Name, property})
			if !f.Optional {
				required = append(required, f.Name)
			}
		}
		o := object{{"type", "object"}, {"required", required}, {"properties", properties}}
		if strict {
			o = append(o, member{"additionalProperties", false})
		}
		return o
	}
	root := structure(reflect.TypeFor[report.Summary]())
	whole := append(object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", fmt.Sprintf("sluice report, version %d", report.Version)},
		{"description", "What `sluice run --report json=PATH` writes. Further fields may be added within a version."},
	}, root...)
	whole = append(whole, member{"$defs", definitions})
	raw, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// comments are those on the fields of the structs in the files of a pattern.
func comments(t *testing.T, pattern string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v, %d files", pattern, err, len(paths))
	}
	all := map[string]string{}
	for _, path := range paths {
		c, err := reporttest.ParseComments(path)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(all, c)
	}
	return all
}

func compile(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("report.schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func jsonOf(t *testing.T, s report.Summary) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := report.WriteJSON(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func validate(schema *jsonschema.Schema, text []byte) error {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(document)
}

// The published schema is that of the types, with their comments.
func TestSchemaIsPublished(t *testing.T) {
	golden.File(t, schemaPath, schema(t, comments(t, "*.go"), false))
}

// Every report is valid, finished or not, and so is one in which every field
// is set. The strict form shows that no field is missing in the schema.
func TestReportsAreValid(t *testing.T) {
	published, err := os.ReadFile(schemaPath)
	if err != nil {
		t.Fatal(err)
	}
	strict := compile(t, schema(t, comments(t, "*.go"), true))
	for name, s := range map[string]*jsonschema.Schema{"published": compile(t, published), "strict": strict} {
		for _, sample := range reporttest.Samples() {
			f := report.NewFold()
			for i, e := range sample.Events {
				f.Emit(e)
				if i%(len(sample.Events)/8+1) > 0 && i < len(sample.Events)-1 {
					continue // eight places on the way are enough
				}
				if err := validate(s, jsonOf(t, f.Summary())); err != nil {
					t.Fatalf("%s: %s after %d events: %v", name, sample.Name, i+1, err)
				}
			}
		}
		vocabulary := map[reflect.Type]any{
			reflect.TypeFor[report.Outcome](): report.OutcomeFailed, reflect.TypeFor[report.State](): report.Ready,
			reflect.TypeFor[event.Level](): event.Info, reflect.TypeFor[event.Action](): event.Created,
		}
		full := reporttest.Filled(reflect.TypeFor[report.Summary](), vocabulary).Interface().(report.Summary)
		full.Version = report.Version
		if err := validate(s, jsonOf(t, full)); err != nil {
			t.Errorf("%s: every field set: %v", name, err)
		}
	}
	// That the schemas can fail at all.
	text := string(jsonOf(t, report.Summarize(reporttest.Changes()...)))
	for _, broken := range []string{
		strings.Replace(text, `"version": 1`, `"version": 2`, 1),
		strings.Replace(text, `"result": "success"`, `"result": "fine"`, 1),
		strings.Replace(text, `"exitCode": 0`, `"exitCode": "0"`, 1),
		strings.Replace(text, `"headline"`, `"headlines"`, 1),
	} {
		if broken == text {
			t.Fatal("nothing was broken")
		}
		if validate(strict, []byte(broken)) == nil {
			t.Errorf("a broken report is valid:\n%.300s", broken)
		}
	}
}

// The words of package event are all known here, so that schema and
// documentation list them all.
func TestVocabulariesAreComplete(t *testing.T) {
	source, err := os.ReadFile("../event/event.go")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for _, m := range regexp.MustCompile(`\w+\s+(Action|Result|Verdict|Level)\s+= "([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		want[m[1]] = append(want[m[1]], m[2])
	}
	for _, goType := range []reflect.Type{
		reflect.TypeFor[event.Action](), reflect.TypeFor[event.Result](), reflect.TypeFor[event.Verdict](), reflect.TypeFor[event.Level](),
	} {
		if got := vocabularies[goType]; !slices.Equal(got, want[goType.Name()]) {
			t.Errorf("%s: known %q, declared %q", goType, got, want[goType.Name()])
		}
	}
	for _, result := range want["Result"] {
		if !slices.Contains(report.States(), report.State(result)) {
			t.Errorf("result %q is no state", result)
		}
	}
	for _, verdict := range want["Verdict"] {
		success := []event.Verdict{event.Live, event.VerdictPlanned, event.VerdictValid, event.VerdictDestroyed}
		if !slices.Contains(success, event.Verdict(verdict)) && !slices.Contains(report.Outcomes(), report.Outcome(verdict)) {
			t.Errorf("verdict %q is no outcome", verdict)
		}
	}
}

// docs/reports.md holds the tables of all fields between markers; -update
// writes them anew.
func TestDocsHoldEveryField(t *testing.T) {
	text, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	got := between(t, string(text), "report fields", reportTables(t))
	got = between(t, got, "events", eventTables(t))
	golden.File(t, docsPath, []byte(got))
}

// between puts content between the markers of that name.
func between(t *testing.T, text, name, content string) string {
	t.Helper()
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s has no markers for %q", docsPath, name)
	}
	return before + begin + "\n" + content + "\n" + end + after
}

// headings name the structs for readers, in the order of the document.
var headings = []struct {
	goType  reflect.Type
	heading string
}{
	{reflect.TypeFor[report.Summary](), "The report"},
	{reflect.TypeFor[report.Source](), "source"},
	{reflect.TypeFor[report.Cluster](), "cluster"},
	{reflect.TypeFor[report.Counts](), "counts"},
	{reflect.TypeFor[report.Builds](), "builds"},
	{reflect.TypeFor[report.Retries](), "retries"},
	{reflect.TypeFor[report.Plan](), "planned"},
	{reflect.TypeFor[report.Row](), "kustomization"},
	{reflect.TypeFor[report.Object](), "object"},
	{reflect.TypeFor[report.Turn](), "turn"},
	{reflect.TypeFor[report.Field](), "field"},
	{reflect.TypeFor[report.ImageChange](), "image change"},
	{reflect.TypeFor[report.Image](), "image"},
	{reflect.TypeFor[report.Prune](), "prune"},
	{reflect.TypeFor[report.Failure](), "failure"},
	{reflect.TypeFor[report.Warning](), "warning event"},
	{reflect.TypeFor[report.Notice](), "notice"},
	{reflect.TypeFor[report.Graph](), "graph"},
	{reflect.TypeFor[report.GraphNode](), "graph node"},
	{reflect.TypeFor[report.Edge](), "graph edge"},
	{reflect.TypeFor[report.Slowest](), "slowest"},
	{reflect.TypeFor[report.Path](), "critical path"},
	{reflect.TypeFor[report.PathStep](), "critical path step"},
}

func reportTables(t *testing.T) string {
	c := comments(t, "*.go")
	name := map[reflect.Type]string{}
	for _, h := range headings {
		name[h.goType] = h.heading
	}
	documented := map[reflect.Type]bool{}
	var b strings.Builder
	for i, h := range headings {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "#### %s\n\n", h.heading)
		table(&b, reporttest.Describe(h.goType, c), name)
		documented[h.goType] = true
	}
	// A struct that the report uses but this list forgot.
	for _, h := range headings {
		for _, f := range reporttest.Describe(h.goType, c) {
			inner := f.Go
			for inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() && !documented[inner] {
				t.Errorf("%s is not documented", inner)
			}
		}
	}
	return b.String()
}

// eventFields say for users what the fields of the events mean, by
// "Struct.field", or by the field alone where it means the same everywhere.
var eventFields = map[string]string{
	"time": "When it happened, UTC.",
	"node": "The Kustomization, `namespace/name`.",
	"file": "The file it is about.",
	"line": "The line in that file.",

	"RunStarted.command": "`run`, `plan`, `check`, `build`, `graph`, `status` or `destroy`.",
	"RunStarted.dryRun":  "Set if a command that writes was to write nothing: `destroy --dry-run`.",
	"RunStarted.version": "The version of sluice.",
	"RunStarted.repo":    "The repository as it was asked for: a path or a URL without credentials.",
	"RunStarted.path":    "The entry folder as it was asked for.",
	"RunStarted.runURL":  "The page of the CI job.",
	"RunStarted.actor":   "Who or what started the CI job.",

	"SourceOpened.url":      "The repository's URL, normalised and without credentials.",
	"SourceOpened.revision": "The revision in Flux's form, such as `main@sha1:<commit>`.",
	"SourceOpened.commit":   "The commit's full hash.",
	"SourceOpened.subject":  "The first line of the commit's message.",
	"SourceOpened.author":   "The commit's author.",
	"SourceOpened.authored": "When the commit was written.",
	"SourceOpened.path":     "The entry folder.",

	"NodeFound.node":      "The Kustomization. If it comes again with the same id, it was built since.",
	"Node.id":             "`namespace/name`.",
	"Node.parent":         "The Kustomization whose build holds this one; absent for the root.",
	"Node.dependsOn":      "What it depends on, in the order of its spec.",
	"Node.path":           "The folder that is built.",
	"Node.file":           "The file that declares it.",
	"Node.revision":       "The revision of its source.",
	"Node.objects":        "How many objects its build holds.",
	"Node.deferred":       "Why it can only be built when its turn comes.",
	"Node.suspended":      "Set if `spec.suspend` is true.",
	"Node.excluded":       "Set if `--only` or `--skip` leaves it out.",
	"Node.awaitsChildren": "Set if it is ready only after the Kustomizations that it holds are.",
	"Node.cluster":        "The Secret or ConfigMap of `spec.kubeConfig`, `Kind/namespace/name` and `/key` if it names one; absent for the run's own cluster.",

	"BuildsFinished.builds": "How many Kustomizations were built before the first write.",
	"BuildsFinished.cached": "How many of these builds the cache had.",
	"BuildsFinished.saved":  "How long those builds had taken when they were made.",

	"ClusterReached.context":       "The context of the kubeconfig.",
	"ClusterReached.server":        "The URL of the API server.",
	"ClusterReached.serverVersion": "The API server's version.",
	"ClusterReached.root":          "The root Kustomization, `namespace/name`.",
	"ClusterReached.previous":      "The revision of the last run that finished; absent on first contact.",
	"ClusterReached.relation":      "How this commit stands to that one: `same`, `ahead`, `behind`, `diverged` or `unknown`.",
	"ClusterReached.ahead":         "How many commits this one has that the previous one has not.",
	"ClusterReached.behind":        "How many commits the previous one has that this one has not.",

	"Notice.level":  "How much it matters.",
	"Notice.code":   "A stable name for the kind of notice.",
	"Notice.object": "The object it is about.",
	"Notice.text":   "What there is to know.",
	"Notice.hint":   "What to do about it.",

	"Planned.changes":   "Every object that is not unchanged, in the order of the run.",
	"Planned.unchanged": "How many objects are as they should be.",
	"Planned.turns":     "The Kustomizations in the order of the run; only for `plan` and `destroy`.",

	"Turn.unchanged": "How many of its objects stay as they are.",
	"Turn.waitsFor":  "The objects that must be healthy before what depends on it starts.",
	"Turn.timeout":   "How long they are waited for at most.",

	"NodeStarted.attempt":  "Which attempt starts, from 1.",
	"NodeStarted.attempts": "The most attempts there will be.",

	"object":     "The object: `Kind/namespace/name`, or `Kind/name`.",
	"apiVersion": "Its group and version.",
	"action":     "What is to be done to it (first five), or was done.",
	"reason":     "Why it was skipped, kept or made again, or has to wait.",
	"images":     "Its container images that differ from before.",
	"fields":     "Its fields that would change; only for `plan`.",

	"ObjectApplied.file": "The manifest it came from.",
	"ObjectPruned.file":  "The manifest it came from, if that is known.",
	"Change.file":        "The manifest it came from.",
	"Field.path":         "The field, as `spec.template.spec.containers[app].image`.",
	"Field.old":          "The value before, on one line; that of a Secret is masked. Absent if the field was not there.",
	"Field.new":          "The value after; absent if the field would go away.",
	"Image.container":    "The container.",
	"Image.old":          "The image before; absent for a new container.",
	"Image.new":          "The image now.",

	"NodeApplied.waiting": "How many objects are waited for.",
	"NodeApplied.timeout": "For how long, at most.",

	"ObjectHealth.status":  "`InProgress`, `Current`, `Failed`, `Terminating`, `NotFound` or `Unknown`.",
	"ObjectHealth.message": "What is known about it.",

	"NodeRetrying.attempt": "The attempt that failed.",
	"NodeRetrying.after":   "How long until the next.",
	"NodeRetrying.failure": "Why it failed.",

	"NodeFinished.result":    "How it ended.",
	"NodeFinished.failures":  "Why it failed, root causes first.",
	"NodeFinished.blockedBy": "The Kustomization that is the cause that this one was not run.",
	"NodeFinished.duration":  "How long it took, from its first start.",
	"NodeFinished.waited":    "The part of it that was spent waiting for health.",

	"PruneStarted.objects":   "How many objects are to be deleted.",
	"PruneFinished.failures": "What could not be deleted.",
	"PruneFinished.duration": "How long it took.",

	"RunFinished.verdict":  "The answer to \"is this commit live and healthy?\".",
	"RunFinished.exitCode": "The exit code of the process.",
	"RunFinished.failures": "What stopped the run as a whole, or all that was found before the first write.",
	"RunFinished.pruned":   "False if pruning was left out because something failed.",
	"RunFinished.saved":    "False if the records in the cluster could not be brought up to date.",
	"RunFinished.repeated": "How many requests to API servers were sent again after a failure that could pass. Watches do not count.",
	"RunFinished.next":     "What to do now.",
	"RunFinished.duration": "How long the run took.",

	"Failure.phase":     "The stage that failed: `source`, `discover`, `build`, `substitute`, `graph`, `cluster`, `plan`, `lock`, `guard`, `apply`, `health`, `prune` or `record`.",
	"Failure.reason":    "A stable code in CamelCase, such as `ImagePull` or `DependencyCycle`.",
	"Failure.text":      "What is wrong, in one sentence.",
	"Failure.hint":      "What to do about it.",
	"Failure.container": "The container.",
	"Failure.events":    "Warning events around the object, without the noise.",
	"Failure.logs":      "The last lines of the failing container, the previous instance first.",
	"Failure.logsNote":  "Why there are no logs, or which instance they are from.",

	"WarningEvent.count":   "How often it was seen.",
	"WarningEvent.reason":  "Its reason, in Kubernetes' words.",
	"WarningEvent.message": "Its message.",
}

// eventTypes are all events, in the order in which a run sends them.
var eventTypes = []event.Event{
	event.RunStarted{}, event.SourceOpened{}, event.NodeFound{}, event.BuildsFinished{}, event.ClusterReached{}, event.Notice{}, event.Planned{}, event.NodeStarted{},
	event.ObjectApplied{}, event.NodeApplied{}, event.ObjectHealth{}, event.NodeRetrying{}, event.NodeFinished{},
	event.PruneStarted{}, event.ObjectPruned{}, event.PruneFinished{}, event.RunFinished{},
}

func eventTables(t *testing.T) string {
	c := map[string]string{}
	unused := maps.Clone(eventFields)
	describe := func(goType reflect.Type) []reporttest.Field {
		fields := reporttest.Describe(goType, c)
		for i := range fields {
			for _, key := range []string{goType.Name() + "." + fields[i].Name, fields[i].Name} {
				if meaning, ok := eventFields[key]; ok {
					fields[i].Doc = meaning
					delete(unused, key)
					break
				}
			}
			if fields[i].Doc == "" {
				t.Errorf("add %q to eventFields: what does the field %q of %s mean?", goType.Name()+"."+fields[i].Name, fields[i].Name, goType)
			}
		}
		return fields
	}
	name := map[reflect.Type]string{}
	parts := []struct {
		goType  reflect.Type
		heading string
	}{
		{reflect.TypeFor[event.Node](), "node (in `node-found`)"},
		{reflect.TypeFor[event.Change](), "change (in `planned`)"},
		{reflect.TypeFor[event.Turn](), "turn (in `planned`)"},
		{reflect.TypeFor[event.Field](), "field (in a change)"},
		{reflect.TypeFor[event.Image](), "image change (in a change)"},
		{reflect.TypeFor[event.Failure](), "failure"},
		{reflect.TypeFor[event.WarningEvent](), "warning event (in a failure)"},
	}
	for _, p := range parts {
		name[p.goType], _, _ = strings.Cut(p.heading, " (")
	}
	var b strings.Builder
	structs := len(parts)
	for _, e := range eventTypes {
		fmt.Fprintf(&b, "#### `%s`\n\n", e.Type())
		table(&b, describe(reflect.TypeOf(e))[1:], name) // without the time, which all have
		b.WriteByte('\n')
		structs++
	}
	for i, p := range parts {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "#### %s\n\n", p.heading)
		table(&b, describe(p.goType), name)
	}
	for key := range unused {
		t.Errorf("eventFields tells of %q, which no event has", key)
	}
	if declared := countStructs(comments(t, "../event/event.go")); declared != structs+1 { // and At
		t.Errorf("package event declares %d structs, %d are documented", declared, structs+1)
	}
	return b.String()
}

func countStructs(c map[string]string) int {
	n := 0
	for name := range c {
		if !strings.Contains(name, ".") {
			n++
		}
	}
	return n
}

// table writes the fields of one object.
func table(b *strings.Builder, fields []reporttest.Field, name map[reflect.Type]string) {
	b.WriteString("| Field | Type | Meaning |\n| --- | --- | --- |\n")
	for _, f := range fields {
		optional := ""
		if f.Optional {
			optional = ", may be absent"
		}
		fmt.Fprintf(b, "| `%s` | %s%s | %s |\n", f.Name, typeName(f.Go, name), optional, strings.ReplaceAll(f.Doc, "|", "\\|"))
	}
}

func typeName(goType reflect.Type, name map[reflect.Type]string) string {
	switch goType {
	case reflect.TypeFor[time.Time]():
		return "time"
	case reflect.TypeFor[report.Seconds](), reflect.TypeFor[time.Duration]():
		return "seconds"
	}
	if words := vocabularies[goType]; words != nil {
		return "`" + strings.Join(words, "`, `") + "`"
	}
	switch goType.Kind() {
	case reflect.Slice:
		return "list of " + typeName(goType.Elem(), name)
	case reflect.Pointer:
		return typeName(goType.Elem(), name)
	case reflect.Struct:
		return name[goType]
	case reflect.Bool:
		return "boolean"
	case reflect.Int:
		return "integer"
	}
	return "string"
}
