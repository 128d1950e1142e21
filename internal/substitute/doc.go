// Package substitute fills variables into built objects, as the postBuild of a
// Flux Kustomization asks for (S3.1 to S3.41): the variables are loaded once
// per Kustomization, and each object goes through its YAML text, so that a
// value is typed anew by what the text then says (S3.21, S3.22).
//
// Errors name the object, its file and, where the text can be found in the
// file, its line; all problems of all objects are returned together. The value
// of a variable never appears in an error or a notice.
//
// All functions are safe for concurrent use as long as nobody changes their
// arguments; none changes them itself.
package substitute
