package report

import "github.com/sluicerun/sluice/internal/event"

// Failure is one cause.
type Failure struct {
	// The stage that failed: `source`, `discover`, `build`, `substitute`, `graph`, `cluster`, `plan`, `lock`, `guard`, `apply`, `health`, `prune` or `record`.
	Phase string `json:"phase"`
	// A stable code in CamelCase, such as `ImagePull` or `DependencyCycle`.
	Reason string `json:"reason"`
	// What is wrong, in one sentence.
	Text string `json:"text"`
	// What to do about it.
	Hint string `json:"hint,omitempty"`
	// The Kustomization.
	Node string `json:"kustomization,omitempty"`
	// The object.
	Object string `json:"object,omitempty"`
	// The container.
	Container string `json:"container,omitempty"`
	// The file.
	File string `json:"file,omitempty"`
	// The line in that file.
	Line int `json:"line,omitempty"`
	// Warning events around the object, without the noise.
	Events []Warning `json:"events,omitempty"`
	// The last lines of the failing container, the previous instance first.
	Logs []string `json:"logs,omitempty"`
	// Why there are no logs, or which instance they are from.
	LogsNote string `json:"logsNote,omitempty"`
}

// Warning is a Kubernetes warning event.
type Warning struct {
	// How often it was seen.
	Count int `json:"count"`
	// Its reason, in Kubernetes' words.
	Reason string `json:"reason"`
	// Its message.
	Message string `json:"message"`
}

// Notice is something to know that is no failure.
type Notice struct {
	// `info` or `warning`.
	Level event.Level `json:"level"`
	// A stable name for the kind of notice, such as `extension-field`.
	Code string `json:"code"`
	// What there is to know.
	Text string `json:"text"`
	// What to do about it.
	Hint string `json:"hint,omitempty"`
	// The Kustomization it is about.
	Node string `json:"kustomization,omitempty"`
	// The object it is about.
	Object string `json:"object,omitempty"`
	// The file it is about.
	File string `json:"file,omitempty"`
	// The line in that file.
	Line int `json:"line,omitempty"`
	// How often it was given.
	Count int `json:"count"`
}
