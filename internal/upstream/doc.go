// Package upstream holds tests that give the same folders and variables to
// sluice and to the libraries of Flux, and compare what comes out. What the
// other tests say of Flux is somebody's reading of it; here it is asked.
//
// It is a module of its own, so that what sluice is built from does not depend
// on Flux's build libraries. `make test` and `make lint` go through it too.
package upstream
