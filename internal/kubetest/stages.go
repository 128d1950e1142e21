//go:build unix

package kubetest

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"text/template"
)

// annotationPrefix starts every annotation that this package understands; docs/test-cluster.md lists them.
const annotationPrefix = "kubetest.sluice.run/"

// stageFiles are KWOK stages: what a kubelet or a provisioner would do. KWOK's templates are Go templates, so ours, which put
// the parts together that several stages share, use << and >>.
//
//go:embed stages
var stageFiles embed.FS

// Values of the annotation "fail". Everything else is reported as an event on the pod.
var failModes = []string{
	"config-error", "crash-loop", "creating", "image-pull", "init-crash-loop", "invalid-image", "not-ready", "oom-killed",
}

// stageValues are what the stage files refer to.
type stageValues struct {
	Prefix           string      // of annotations
	Provisioner      string      // of volumes
	FailModes        []string    // all values of the annotation "fail"
	ValidImage       string      // regular expression of image references that a runtime can parse
	Missing          string      // regular expression of image references that no registry has
	StepMilliseconds int         // between the states that a failing pod goes through
	ImageModes       []imageMode // the ways in which an image cannot be had
	ImagePull        imageMode   // the one of them that is tried again
}

// imageMode is a way in which an image cannot be had. Messages are the operands of printf in KWOK's templates, where $image is the
// image reference.
type imageMode struct {
	Prefix       string
	Name         string // value of the annotation "fail"
	Image        string // regular expression that decides which container's image it is
	Matches      bool   // whether it is the one that matches, or the one that does not
	First        string // reason of the container's first waiting state
	FirstMessage string
	Event        string // reason of the event
	EventMessage string
	Cause        string // the runtime's words, with $image thrice
}

// notFound is what containerd says about a tag that the registry does not have.
const notFound = `rpc error: code = NotFound desc = failed to pull and unpack image %q: failed to resolve reference %q: %s: not found`

var (
	imagePull = imageMode{
		Prefix: annotationPrefix, Name: "image-pull", Image: missingImage, Matches: true,
		First: "ErrImagePull", FirstMessage: `"` + notFound + `" $image $image $image`,
		Event: "Failed", EventMessage: `"Failed to pull image %q: ` + notFound + `" $image $image $image $image`,
		Cause: notFound,
	}
	invalidImage = imageMode{
		Prefix: annotationPrefix, Name: "invalid-image", Image: validImage, Matches: false,
		First:        "InvalidImageName",
		FirstMessage: `"Failed to apply default image tag %q: couldn't parse image name %q: invalid reference format" $image $image`,
		Event:        "InspectFailed",
		EventMessage: `"Failed to apply default image tag %q: couldn't parse image name %q: invalid reference format" $image $image`,
	}
)

// The grammar of image references (github.com/distribution/reference, without its length limits): host and port, path, tag and
// digest. Character classes stand where a backslash would have to survive jq, YAML and Go.
const (
	imageHost  = `([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*(:[0-9]+)?/)?`
	imagePart  = `[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*`
	imageTag   = `(:[a-zA-Z0-9_][a-zA-Z0-9_.-]*)?`
	imageHash  = `(@[a-zA-Z][a-zA-Z0-9+._-]*:[0-9a-fA-F]{32,})?`
	validImage = `^` + imageHost + imagePart + `(/` + imagePart + `)*` + imageTag + imageHash + `$`
	// A path part "missing", or a tag that is or ends with "missing" or "does-not-exist".
	missingImage = `(^|/)missing(/|:|@|$)|:([a-zA-Z0-9_.-]*-)?(missing|does-not-exist)(@|$)`
)

// renderStages returns all stages as one YAML stream, the configuration of KWOK.
func renderStages() ([]byte, error) {
	t, err := template.New("").Delims("<<", ">>").Option("missingkey=error").ParseFS(stageFiles, "stages/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse the stages: %w", err)
	}
	files, err := fs.Glob(stageFiles, "stages/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the stages: %w", err)
	}
	var out bytes.Buffer
	for _, file := range files {
		out.WriteString("---\n")
		err := t.ExecuteTemplate(&out, file[len("stages/"):], stageValues{
			Prefix: annotationPrefix, Provisioner: volumeProvisioner, FailModes: failModes, ValidImage: validImage, Missing: missingImage,
			StepMilliseconds: 300, ImageModes: []imageMode{imagePull, invalidImage}, ImagePull: imagePull,
		})
		if err != nil {
			return nil, fmt.Errorf("render the stages: %w", err)
		}
	}
	return out.Bytes(), nil
}
