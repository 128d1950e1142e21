package build

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// maxData is how many bytes the values of a ConfigMap or Secret may have together,
// as API servers have it.
const maxData = 1 << 20

// Sizes returns an error for each object that no API server takes for its size,
// so that a user learns of it without one: a ConfigMap or Secret of more than
// 1 MiB, and anything of more than 3 MiB, which is the limit of a request.
func Sizes(k *flux.Kustomization, objects []flux.Object) error {
	var problems []*flux.Problem
	for _, o := range objects {
		p := &flux.Problem{Kustomization: k.ID, File: o.File, Object: o.Ref().String()}
		switch data, size := held(o), atLeast(o.Object); {
		case data > maxData:
			p.Err = fmt.Errorf("its values have %s, and no API server takes more than %s in a %s", mebibytes(int64(data)), mebibytes(maxData), o.GetKind())
			p.Remedy = "divide it, or bring large files along in an image"
		case size > maxObject:
			p.Err = fmt.Errorf("the object has %s, and API servers take no request of more than %s", mebibytes(int64(size)), mebibytes(maxObject))
			p.Remedy = "divide it"
		default:
			continue
		}
		problems = append(problems, p)
	}
	return flux.JoinProblems(problems)
}

var lineBreaks = strings.NewReplacer("\r", "", "\n", "")

// held is the size of what a ConfigMap or Secret holds; 0 for all else.
func held(o flux.Object) int {
	kind := o.GetKind()
	if o.GetAPIVersion() != "v1" || kind != "ConfigMap" && kind != "Secret" {
		return 0
	}
	sum := 0
	over, _ := o.Object["stringData"].(map[string]any)
	for _, field := range []string{"data", "binaryData", "stringData"} {
		values, _ := o.Object[field].(map[string]any) // what is no map the server refuses
		for key, value := range values {
			text, _ := value.(string)
			if _, twice := over[key]; twice && field == "data" && kind == "Secret" {
				continue // stringData replaces it
			}
			if field == "binaryData" || field == "data" && kind == "Secret" {
				text = lineBreaks.Replace(text)                     // base64 may have them anywhere
				sum += base64.StdEncoding.DecodedLen(len(text)) - 2 // at most so much less
			} else {
				sum += len(text)
			}
		}
	}
	return sum
}

// atLeast is how many bytes a value has in JSON at least: that of its keys and
// texts, and one for everything else.
func atLeast(value any) int {
	switch v := value.(type) {
	case string:
		return len(v) + 2
	case map[string]any:
		sum := 2
		for key, one := range v {
			sum += len(key) + 3 + atLeast(one)
		}
		return sum
	case []any:
		sum := 2
		for _, one := range v {
			sum += 1 + atLeast(one)
		}
		return sum
	}
	return 1
}
