package discover

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	strictjson "sigs.k8s.io/json"

	"github.com/sluicerun/sluice/internal/flux"
)

var (
	textSchema = &schema{Type: "string"}
	// labelSchema is that of labels and annotations: a server takes null
	// there for empty.
	labelSchema = &schema{Type: "object", Values: &schema{Type: "string", Nullable: true}}
)

// metadataFields are the fields of metadata that people write, with their types.
var metadataFields = []struct {
	name   string
	schema *schema
}{
	{"labels", labelSchema},
	{"annotations", labelSchema},
	{"name", textSchema},
	{"namespace", textSchema},
}

// metadata checks what an API server checks of every object: fields, types,
// names and labels. A namespace is asked for too, since nobody is there to set
// a default one (S16.4, S4.48).
func (s *splitter) metadata(o flux.Object) (meta metav1.ObjectMeta, found []finding) {
	raw, _ := o.Object["metadata"].(map[string]any)
	for _, f := range metadataFields {
		if value := raw[f.name]; value != nil {
			found = append(found, f.schema.check("metadata."+f.name, value)...)
		}
	}
	if len(found) > 0 {
		return meta, found
	}
	if o.GetNamespace() == "" {
		found = append(found, finding{"metadata.namespace", "namespace not specified", "set metadata.namespace, or targetNamespace in " + s.parent.String()})
	}
	text, err := json.Marshal(raw)
	if err != nil {
		return meta, append(found, finding{"metadata", err.Error(), ""})
	}
	unknown, err := strictjson.UnmarshalStrict(text, &meta)
	if err != nil {
		return meta, append(found, finding{"metadata", strings.TrimPrefix(err.Error(), "json: "), ""})
	}
	for _, err := range unknown {
		found = append(found, unknownMetadata(err.Error()))
	}
	if meta.Namespace == "" {
		meta.Namespace = "default" // told above
	}
	for _, err := range apivalidation.ValidateObjectMeta(&meta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata")) {
		what := err.Detail
		if value, ok := err.BadValue.(string); ok && value != "" {
			what = fmt.Sprintf("%q: %s", value, what)
		} else if what == "" {
			what = err.ErrorBody()
		}
		found = append(found, finding{err.Field, what, ""})
	}
	return meta, found
}

// unknownMetadata names the field of the decoder's message: unknown field "a.b".
func unknownMetadata(message string) finding {
	_, quoted, _ := strings.Cut(message, " field ")
	name, err := strconv.Unquote(quoted)
	if err != nil {
		return finding{"metadata", message, "remove the field"}
	}
	remedy := meant(name, metadataNames())
	if remedy == "" {
		remedy = "remove the field"
	}
	return finding{"metadata." + name, "unknown field: metadata has no such field", remedy}
}

// metadataNames are the fields of every object's metadata, sorted.
func metadataNames() []string {
	var names []string
	of := reflect.TypeFor[metav1.ObjectMeta]()
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
