package api

import "testing"

func TestATextIsClippedBetweenItsSigns(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want string
	}{
		{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aéb", 2, "a"}, {"aéb", 3, "aé"}, {"\xff", 3, "\uFFFD"}, {"\x80\x80\x80\x80\x80\x80", 1, ""}, {"abc", 0, ""},
	} {
		if got := Clip(c.text, c.most); got != c.want {
			t.Errorf("%q in %d bytes is %q, want %q", c.text, c.most, got, c.want)
		}
	}
}
