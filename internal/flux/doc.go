// Package flux holds the nouns that the stages of a run share: what a Flux
// Kustomization is as read here, and what a built object is. It holds no
// behaviour beyond the defaults that Flux itself gives to a field, reads no
// file and talks to no server.
//
// All values are plain data. They are safe for concurrent reading; whoever
// makes one owns it until it is handed on, and nobody changes it afterwards.
package flux
