package report

// Graph is the dependency graph with the state of each node.
type Graph struct {
	// The Kustomizations, in the order in which they were found.
	Nodes []GraphNode `json:"nodes"`
	// What must come before what.
	Edges []Edge `json:"edges"`
}

// GraphNode is a node of the graph.
type GraphNode struct {
	// `namespace/name`.
	ID string `json:"id"`
	// The name to show.
	Name string `json:"name"`
	// How it ended, or what it is doing.
	State State `json:"state"`
}

// Edge says that To comes after From.
type Edge struct {
	// What comes first.
	From string `json:"from"`
	// What comes after it.
	To string `json:"to"`
	// `dependsOn`, or `parent` for the Kustomization whose build holds the other.
	Kind string `json:"kind"`
}
