// Package inventory remembers which objects each Kustomization has in the cluster, and what the last run of a root was. Pruning
// is only as right as this.
//
// It holds three things:
//
//   - Entry and the set operations on slices of it. Ids are byte for byte Flux's (S5.1, S5.2), so that a cluster can be handed
//     over in both directions.
//   - Record, one per Kustomization, and Root, one per entry folder: what a run must know of earlier runs. Flux keeps the same
//     in the status of the Kustomization object, which does not exist here (S16.5).
//   - Store, which keeps them: ClusterStore in ConfigMaps, MemoryStore in memory.
//
// The rule that makes a kill at any instant harmless is the caller's: save Union(old, new) before the first object is applied
// (S0.24), and narrow it only after pruning. A record may name too much, never too little.
//
// Nothing here deletes an object of a Kustomization, prints, or logs. Records and roots belong to whoever loaded or made them
// and are not safe for concurrent use; stores are.
package inventory
