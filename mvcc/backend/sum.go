package backend

// AddRow joins a row to the set: for those who check rows that are not in a
// base, such as those of a snapshot.
func (s *Sum) AddRow(key, kv []byte) {
	row, _ := hashRow(make([]byte, 0, 4+len(key)+len(kv)), key, kv)
	s.add(row)
}
