package cli

import "strings"

// A column of a table.
type column struct {
	title string
	right bool // numbers stand under each other
	least int  // it is never narrower, so that it does not move when numbers grow
	drop  int  // where there is no room, the column with the highest goes first; 0 never
}

func left(title string, least int) column  { return column{title: title, least: least} }
func right(title string, least int) column { return column{title: title, right: true, least: least} }

// A table is lines of cells under titles.
type table struct {
	columns []column
	rows    [][]string
	widths  []int // as wide as they ever were, for a table that is printed again and again
	room    int   // the cells of a line, for all columns but the last; 0 is no bound
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// lines are the table's lines, the titles first. The last column takes what it
// needs and leaves no spaces behind; a column in which no line says anything is
// left out, its title too.
func (t *table) lines(p painter) []string {
	used := make([]bool, len(t.columns))
	if len(t.widths) != len(t.columns) {
		t.widths = make([]int, len(t.columns))
	}
	for i, c := range t.columns {
		t.widths[i] = max(t.widths[i], width(c.title), c.least)
	}
	for _, r := range t.rows {
		for i, cell := range r {
			used[i] = used[i] || cell != ""
			t.widths[i] = max(t.widths[i], width(cell))
		}
	}
	t.fit(used)
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
		used[i] = used[i] || len(t.rows) == 0
	}
	all := []string{p.paint(bold, t.line(titles, used))}
	for _, r := range t.rows {
		all = append(all, t.line(r, used))
	}
	return all
}

// fit takes columns out until the others have room.
func (t *table) fit(used []bool) {
	for {
		need, out := 0, -1
		for i, c := range t.columns[:len(t.columns)-1] {
			if !used[i] {
				continue
			}
			need += t.widths[i] + 2
			if c.drop > 0 && (out < 0 || c.drop > t.columns[out].drop) {
				out = i
			}
		}
		if t.room == 0 || need-2 <= t.room || out < 0 {
			return
		}
		used[out] = false
	}
}

func (t *table) line(cells []string, used []bool) string {
	var b strings.Builder
	for i, cell := range cells {
		if !used[i] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("  ")
		}
		pad := strings.Repeat(" ", max(t.widths[i]-width(cell), 0))
		if t.columns[i].right {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// String is the whole table without styles.
func (t *table) String() string { return strings.Join(t.lines(false), "\n") + "\n" }
