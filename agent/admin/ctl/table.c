/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/utf8.h"
#include "base/owned.h"

#define GAP 2 /* spaces between columns */

static char *join(const json_t *array)
{
	char *text = strdup("");

	for (size_t i = 0; text && i < json_array_size(array); i++) {
		OWNED_MEM char *before = text;
		OWNED_MEM char *item = table_cell(json_array_get(array, i));

		if (!item || asprintf(&text, "%s%s%s", before, i > 0 ? "," : "", item) < 0)
			text = NULL;
	}
	return text;
}

static char *print_number(json_int_t n)
{
	char *text;

	return asprintf(&text, "%" JSON_INTEGER_FORMAT, n) < 0 ? NULL : text;
}

char *table_cell(const json_t *value)
{
	switch (value ? json_typeof(value) : JSON_NULL) {
	case JSON_STRING:
		return strdup(json_string_length(value) > 0 ? json_string_value(value) : "-");
	case JSON_INTEGER:
		return print_number(json_integer_value(value));
	case JSON_TRUE:
		return strdup("yes");
	case JSON_FALSE:
		return strdup("no");
	case JSON_ARRAY:
		return json_array_size(value) > 0 ? join(value) : strdup("-");
	case JSON_NULL:
		return strdup("-");
	case JSON_REAL:
	case JSON_OBJECT:
		break;
	}
	return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* In place: control characters, C1 ones too, become '?', so that a name cannot steer the terminal.
 * Returns how many characters there are.
 */
static size_t defuse(char *text)
{
	uint8_t *p = (uint8_t *)text;
	size_t left = strlen(text), chars = 0;

	while (left > 0) {
		size_t step = utf8_step(p, left);

		if (step == 2 && p[0] == 0xc2 && p[1] < 0xa0)
			step = 0;
		if (step == 0 || *p < ' ' || *p == 0x7f)
			*p = '?';
		step = step > 0 ? step : 1;
		p += step;
		left -= step;
		chars++;
	}
	return chars;
}

/* ---- the grid: n columns wide, the titles first ---- */

struct cell {
	char *text;
	size_t width;
};

struct grid {
	struct cell *cells;
	size_t rows, columns;
};

static void grid_done(struct grid *grid)
{
	for (size_t i = 0; grid->cells && i < grid->rows * grid->columns; i++)
		free(grid->cells[i].text);
	free(grid->cells);
}

static bool grid_fill(struct grid *grid, const json_t *rows, const struct column *columns)
{
	struct cell *cell = grid->cells;

	for (size_t y = 0; y < grid->rows; y++) {
		for (size_t x = 0; x < grid->columns; x++, cell++) {
			const json_t *row = y > 0 ? json_array_get(rows, y - 1) : NULL;

			cell->text = row ? table_cell(json_object_get(row, columns[x].key))
					 : strdup(columns[x].title);
			if (!cell->text)
				return false;
			cell->width = defuse(cell->text);
		}
	}
	return true;
}

static size_t width_of(const struct grid *grid, size_t column)
{
	size_t width = 0;

	for (size_t y = 0; y < grid->rows; y++) {
		size_t w = grid->cells[y * grid->columns + column].width;

		width = w > width ? w : width;
	}
	return width;
}

static bool grid_print(const struct grid *grid)
{
	OWNED_MEM size_t *widths = calloc(grid->columns, sizeof(*widths));

	if (!widths)
		return false;
	for (size_t x = 0; x < grid->columns; x++)
		widths[x] = width_of(grid, x);
	for (size_t i = 0; i < grid->rows * grid->columns; i++) {
		const struct cell *cell = &grid->cells[i];
		size_t x = i % grid->columns;

		if (x + 1 < grid->columns)
			printf("%s%*s", cell->text, (int)(widths[x] - cell->width + GAP), "");
		else
			printf("%s\n", cell->text);
	}
	return true;
}

static int flush_output(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return ctl_fail("cannot write to standard output: %m");
	return EXIT_DONE;
}

int table_print(const json_t *rows, const struct column *columns, size_t n, const char *none)
{
	OWNED(grid_done) struct grid grid = {.rows = json_array_size(rows) + 1, .columns = n};

	if (!json_is_array(rows))
		return ctl_fail("the agent did not answer with a list: is it of another version?");
	if (json_array_size(rows) == 0)
		return print_text(none);
	grid.cells = calloc(grid.rows * grid.columns, sizeof(*grid.cells));
	if (!grid.cells || !grid_fill(&grid, rows, columns) || !grid_print(&grid))
		return ctl_fail("out of memory");
	return flush_output();
}

int table_show(const struct ctl *ctl, const char *path, const struct column *columns, size_t n,
	       const char *none)
{
	OWNED(drop_json) json_t *rows = NULL;
	OWNED_MEM char *text = NULL;
	int r;

	r = client_get(ctl, path, &text, &rows);
	if (r != EXIT_DONE)
		return r;
	return ctl->json ? print_text(text) : table_print(rows, columns, n, none);
}

int print_text(const char *text)
{
	printf("%s\n", text);
	return flush_output();
}
