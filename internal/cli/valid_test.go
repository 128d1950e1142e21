package cli_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/rogpeppe/go-internal/testscript"
)

// valid holds a file against its form: "json" and "xml" documents, "jsonl" with
// an object on each line, and "events", the contract of package event on top of
// that.
func valid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: valid json|jsonl|xml|events FILE")
	}
	check, ok := map[string]func([]byte) error{"json": validJSON, "jsonl": validLines, "xml": validXML, "events": validEvents}[args[0]]
	if !ok {
		ts.Fatalf("unknown form %q", args[0])
	}
	if err := check([]byte(ts.ReadFile(args[1]))); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

func validJSON(text []byte) error {
	var document any
	return json.Unmarshal(text, &document)
}

func validLines(text []byte) error {
	_, err := objects(text)
	return err
}

// objects reads a file with one JSON object per line.
func objects(text []byte) ([]map[string]any, error) {
	if !bytes.HasSuffix(text, []byte("\n")) {
		return nil, errors.New("the last line is cut off")
	}
	var all []map[string]any
	for i, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		var object map[string]any
		if err := json.Unmarshal(line, &object); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		all = append(all, object)
	}
	return all, nil
}

func validXML(text []byte) error {
	decoder := xml.NewDecoder(bytes.NewReader(text))
	elements := 0
	for {
		token, err := decoder.Token()
		switch {
		case errors.Is(err, io.EOF) && elements > 0:
			return nil
		case err != nil:
			return err
		}
		if _, ok := token.(xml.StartElement); ok {
			elements++
		}
	}
}

// validEvents: the run's start first and its end last, each once; every node
// that was announced ends once, and no other does.
func validEvents(text []byte) error {
	events, err := objects(text)
	if err != nil {
		return err
	}
	var types, announced, ended []string
	for _, e := range events {
		name, _ := e["type"].(string)
		types = append(types, name)
		switch name {
		case "node-found":
			node, _ := e["node"].(map[string]any)
			announced = append(announced, fmt.Sprint(node["id"]))
		case "node-finished":
			ended = append(ended, fmt.Sprint(e["node"]))
		}
	}
	last := len(types) - 1
	if slices.Index(types, "run-started") != 0 || slices.Contains(types[1:], "run-started") {
		return errors.New("run-started is not the first event, once")
	}
	if slices.Index(types, "run-finished") != last {
		return errors.New("run-finished is not the last event, once")
	}
	slices.Sort(announced)
	slices.Sort(ended)
	if len(announced) == 0 || !slices.Equal(announced, ended) {
		return fmt.Errorf("announced are %v, ended %v", announced, ended)
	}
	return nil
}
