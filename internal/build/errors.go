package build

import "strings"

// oneLine removes the mount point and the line breaks from kustomize's text.
func oneLine(text string) string {
	text = strings.ReplaceAll(text, mount+"/", "")
	text = strings.ReplaceAll(text, mount, ".")
	return strings.Join(strings.Fields(text), " ")
}
