/* Check backpropagation through time in C against golden vectors.

       cc -std=c99 -O2 check.c -o check -lm
       ./check golden_float64.json

   Put your own code in the place of BPTT, between the two lines. It is compiled for double and for
   float, and the dtype of the file decides which of them runs. docs/golden-vectors.md describes the
   file. Exit code 0: all match; 1: something does not; 2: the file cannot be used. */

#ifdef REAL

/* ---------------------------------------------------------------------------------------------- */

/* Write the states, the outputs, the loss and every gradient to arrays of zeros. Arrays are stored
   row by row: W[i][j] is W[i * H + j], and x of step t and sequence s starts at
   ((t - 1) * B + s) * D. The states h[0..T] have one step more than x. */
static void BPTT(Sizes n, REAL *const *in, REAL *const *out)
{
    const REAL *W = in[0], *U = in[1], *b = in[2], *V = in[3], *c = in[4];
    const REAL *x = in[5], *h0 = in[6], *target = in[7];
    REAL *h = out[0], *y = out[1], *loss = out[2];
    REAL *dW = out[3], *dU = out[4], *db = out[5], *dV = out[6], *dc = out[7];
    REAL *dx = out[8], *dh0 = out[9], *dh = out[10];
    const int T = n.T, B = n.B, D = n.D, H = n.H, O = n.O;

    for (int i = 0; i < B * H; i++)
        h[i] = h0[i];
    for (int t = 1; t <= T; t++) {
        for (int s = 0; s < B; s++) {
            const REAL *before = h + ((t - 1) * B + s) * H, *x_t = x + ((t - 1) * B + s) * D;
            REAL *now = h + (t * B + s) * H, *y_t = y + ((t - 1) * B + s) * O;
            for (int i = 0; i < H; i++) {
                REAL a = b[i];
                for (int j = 0; j < H; j++)
                    a += W[i * H + j] * before[j];
                for (int j = 0; j < D; j++)
                    a += U[i * D + j] * x_t[j];
                now[i] = TANH(a); /* Eq. 1 */
            }
            for (int k = 0; k < O; k++) {
                y_t[k] = c[k];
                for (int i = 0; i < H; i++)
                    y_t[k] += V[k * H + i] * now[i]; /* Eq. 2 */
            }
        }
    }
    for (int t = T; t >= 1; t--) {
        for (int s = 0; s < B; s++) {
            const REAL *before = h + ((t - 1) * B + s) * H, *x_t = x + ((t - 1) * B + s) * D;
            const REAL *now = h + (t * B + s) * H, *y_t = y + ((t - 1) * B + s) * O;
            REAL *dh_before = dh + ((t - 1) * B + s) * H, *dx_t = dx + ((t - 1) * B + s) * D;
            REAL *dh_now = dh + (t * B + s) * H; /* what step t + 1 sends is in it already */
            const REAL *goal = target + (n.last_step ? s : (t - 1) * B + s) * O;
            for (int k = 0; k < O && (t == T || !n.last_step); k++) {
                const REAL error = y_t[k] - goal[k], dy = 2 * error;
                *loss += error * error; /* Eq. 3 */
                dc[k] += dy;
                for (int i = 0; i < H; i++) {
                    dV[k * H + i] += dy * now[i];
                    dh_now[i] += V[k * H + i] * dy; /* Eq. 4 */
                }
            }
            for (int i = 0; i < H; i++) {
                const REAL da = (1 - now[i] * now[i]) * dh_now[i];
                db[i] += da;
                for (int j = 0; j < H; j++) {
                    dW[i * H + j] += da * before[j];
                    dh_before[j] += W[i * H + j] * da; /* Eq. 5 */
                }
                for (int j = 0; j < D; j++) {
                    dU[i * D + j] += da * x_t[j];
                    dx_t[j] += U[i * D + j] * da;
                }
            }
        }
    }
    for (int i = 0; i < B * H; i++)
        dh0[i] = dh[i];
}

/* ---------------------------------------------------------------------------------------------- */

/* Run BPTT on numbers in double, which hold those in float exactly. */
static void RUN(Sizes n, const Numbers *inputs, Numbers *outputs)
{
    REAL *in[INPUTS], *out[OUTPUTS];
    for (int k = 0; k < INPUTS; k++) {
        in[k] = allocate(inputs[k].count, sizeof(REAL));
        for (size_t i = 0; i < inputs[k].count; i++)
            in[k][i] = (REAL)inputs[k].number[i];
    }
    for (int k = 0; k < OUTPUTS; k++)
        out[k] = allocate(outputs[k].count, sizeof(REAL));
    BPTT(n, in, out);
    for (int k = 0; k < OUTPUTS; k++)
        for (size_t i = 0; i < outputs[k].count; i++)
            outputs[k].number[i] = out[k][i];
}

#else

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS 8
#define OUTPUTS 11
#define LARGEST 100000 /* of the sizes */
#define DEEPEST 16     /* nesting of the file */

typedef struct {
    int T, B, D, H, O;
    int last_step; /* is the loss that of the last output alone? */
} Sizes;

typedef struct {
    size_t count;
    double *number;
} Numbers;

/* The letters are the sizes of the axes, and + stands for T + 1. */
typedef struct {
    const char *name, *axes;
} Described;

static const Described INPUT[INPUTS] = {
    {"W", "HH"}, {"U", "HD"}, {"b", "H"}, {"V", "OH"}, {"c", "O"}, {"x", "TBD"}, {"h0", "BH"},
    {"target", "TBO"}, /* BO, if the loss is that of the last output alone */
};
static const Described OUTPUT[OUTPUTS] = {
    {"h", "+BH"}, {"y", "TBO"}, {"loss", ""}, {"dW", "HH"},   {"dU", "HD"},  {"db", "H"},
    {"dV", "OH"}, {"dc", "O"},  {"dx", "TBD"}, {"dh0", "BH"}, {"dh", "+BH"},
};

static const char *file_name = "";

/* Say in one line why the file cannot be used, and end. */
static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "check: %s: ", file_name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(2);
}

/* Memory that is zero, and freed at the end. */
typedef struct Block {
    struct Block *next;
    double data[1];
} Block;
static Block *blocks = NULL;

static void *allocate(size_t count, size_t size)
{
    Block *block = calloc(1, sizeof(Block) + count * size);
    if (block == NULL)
        fail("out of memory");
    block->next = blocks;
    blocks = block;
    return block->data;
}

static void free_all(void)
{
    while (blocks != NULL) {
        Block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

#define REAL double
#define TANH tanh
#define BPTT bptt_double
#define RUN run_double
#include "check.c"
#undef REAL
#undef TANH
#undef BPTT
#undef RUN
#define REAL float
#define TANH tanhf
#define BPTT bptt_float
#define RUN run_float
#include "check.c"

/* JSON, as far as the files use it ------------------------------------------------------------- */

typedef struct Json {
    char kind;  /* '{' object, '[' array, '"' text, '0' number */
    long where; /* byte in the file */
    char *key, *text;
    double number;
    size_t count; /* of the members of an object or array */
    struct Json *first, *next;
} Json;

static char *contents, *cursor;

static char next_character(void)
{
    while (isspace((unsigned char)*cursor))
        cursor++;
    return *cursor;
}

static void unexpected(const char *expected)
{
    const long where = (long)(cursor - contents);
    if (*cursor == '\0')
        fail("the file ends at byte %ld, where %s is expected", where, expected);
    fail("%s is expected at byte %ld", expected, where);
}

/* Return a text, which ends where its second quotation mark was. */
static char *parse_text(void)
{
    char *start, *end;
    if (next_character() != '"')
        unexpected("a text");
    start = end = ++cursor;
    while (*cursor != '"') {
        if (*cursor == '\\')
            cursor++;
        if (*cursor == '\0')
            unexpected("the end of a text");
        *end++ = *cursor++;
    }
    cursor++;
    *end = '\0';
    return start;
}

static Json *parse(int depth)
{
    Json *json = allocate(1, sizeof(Json)), **last = &json->first;
    const char first = next_character(), close = first == '{' ? '}' : ']';
    char *end;
    json->where = (long)(cursor - contents);
    if (first == '"') {
        json->kind = first;
        json->text = parse_text();
    } else if (first == '-' || isdigit((unsigned char)first)) {
        json->kind = '0';
        json->number = strtod(cursor, &end);
        cursor = end;
    } else if (first != '{' && first != '[') {
        unexpected("a value");
    } else if (depth == DEEPEST) {
        unexpected("less nesting");
    } else {
        json->kind = first;
        cursor++;
        while (next_character() != close) {
            char *key = NULL;
            if (json->count > 0) {
                if (*cursor != ',')
                    unexpected("a comma or the end of a list");
                cursor++;
            }
            if (first == '{') {
                key = parse_text();
                if (next_character() != ':')
                    unexpected("a colon");
                cursor++;
            }
            *last = parse(depth + 1);
            (*last)->key = key;
            last = &(*last)->next;
            json->count++;
        }
        cursor++;
    }
    return json;
}

/* Return a member of an object, which must be of a kind. */
static const Json *member(const Json *object, const char *key, char kind)
{
    const Json *found = object->kind == '{' ? object->first : NULL;
    while (found != NULL && strcmp(found->key, key) != 0)
        found = found->next;
    if (found == NULL)
        fail("\"%s\" is missing from what starts at byte %ld", key, object->where);
    if (found->kind != kind)
        fail("\"%s\" at byte %ld is of the wrong kind", key, found->where);
    return found;
}

static int size(const Json *vector, const char *key)
{
    const double number = member(vector, key, '0')->number;
    if (!(number >= 1 && number <= LARGEST && number == floor(number)))
        fail("%s is %g; expected a whole number from 1 to %d", key, number, LARGEST);
    return (int)number;
}

/* Return the length of an axis. */
static int length(Sizes n, char axis)
{
    switch (axis) {
    case 'T': return n.T;
    case '+': return n.T + 1;
    case 'B': return n.B;
    case 'D': return n.D;
    case 'H': return n.H;
    default: return n.O;
    }
}

/* Return one part of an array, after a look at its shape. */
static Numbers numbers(const Json *array, const char *part, Sizes n, const char *axes)
{
    const Json *shape = member(array, "shape", '['), *texts = member(array, part, '[');
    const Json *axis = shape->first, *text = texts->first;
    double count = 1;
    Numbers found;
    for (size_t i = 0; i < strlen(axes); i++) {
        count *= length(n, axes[i]);
        if (axis == NULL || axis->kind != '0' || axis->number != length(n, axes[i]))
            fail("the shape at byte %ld is not that of its array", shape->where);
        axis = axis->next;
    }
    if (axis != NULL || (double)texts->count != count)
        fail("the array at byte %ld has %lu numbers; expected %.0f", texts->where,
             (unsigned long)texts->count, count);
    found.count = texts->count;
    found.number = allocate(found.count, sizeof(double));
    for (size_t i = 0; i < found.count; i++, text = text->next) {
        char *end = NULL;
        if (text->kind == '"')
            found.number[i] = strtod(text->text, &end); /* C99 reads hexadecimal numbers */
        if (end == NULL || end == text->text || *end != '\0' || !isfinite(found.number[i]))
            fail("a number is expected at byte %ld", text->where);
    }
    return found;
}

/* Comparison ----------------------------------------------------------------------------------- */

/* Print the indices of entry i, as in [2][0][1]. */
static void print_indices(Sizes n, const char *axes, size_t i)
{
    size_t below = 1;
    for (const char *axis = axes + (*axes != '\0'); *axis != '\0'; axis++)
        below *= (size_t)length(n, *axis);
    for (; *axes != '\0'; axes++) {
        printf("[%lu]", (unsigned long)(i / below));
        i %= below;
        if (axes[1] != '\0')
            below /= (size_t)length(n, axes[1]);
    }
}

/* Return whether an array is as it must be, and say so if it is not. */
static int matches(const char *vector, Described described, Sizes n, const Json *expected,
                   Numbers got)
{
    const Json *array = member(expected, described.name, '{');
    const Numbers value = numbers(array, "value", n, described.axes);
    const Numbers bound = numbers(array, "error_bound", n, described.axes);
    const Numbers tolerance = numbers(array, "tolerance", n, described.axes);
    size_t wrong = 0, first = 0;
    for (size_t i = got.count; i-- > 0;) {
        const double error = fabs(got.number[i] - value.number[i]);
        if (!(error <= tolerance.number[i] + bound.number[i])) { /* so that NaN is wrong */
            wrong++;
            first = i;
        }
    }
    if (wrong == 0)
        return 1;
    printf("%s: %s", vector, described.name);
    print_indices(n, described.axes, first);
    printf(" is %.17g; expected %.17g up to %.2g (%lu of %lu entries are wrong)\n",
           got.number[first], value.number[first], tolerance.number[first] + bound.number[first],
           (unsigned long)wrong, (unsigned long)got.count);
    return 0;
}

/* Return how many arrays of a vector do not match. */
static int check(const Json *vector, int single)
{
    const char *name = member(vector, "name", '"')->text, *loss = member(vector, "loss", '"')->text;
    const Json *in = member(vector, "inputs", '{'), *expected = member(vector, "expected", '{');
    Sizes n = {size(vector, "T"), size(vector, "B"), size(vector, "D"),
               size(vector, "H"), size(vector, "O"), strcmp(loss, "last_step_squared_error") == 0};
    Numbers inputs[INPUTS], outputs[OUTPUTS];
    int wrong = 0;
    if (!n.last_step && strcmp(loss, "squared_error") != 0)
        fail("%s: the loss \"%s\" is unknown", name, loss);
    for (int k = 0; k < INPUTS; k++) {
        const int last = strcmp(INPUT[k].name, "target") == 0 && n.last_step;
        const Json *array = member(in, INPUT[k].name, '{');
        inputs[k] = numbers(array, "value", n, INPUT[k].axes + (last ? 1 : 0));
    }
    for (int k = 0; k < OUTPUTS; k++) {
        const Json *array = member(expected, OUTPUT[k].name, '{');
        outputs[k] = numbers(array, "value", n, OUTPUT[k].axes);
    }
    (single ? run_float : run_double)(n, inputs, outputs);
    for (int k = 0; k < OUTPUTS; k++)
        wrong += !matches(name, OUTPUT[k], n, expected, outputs[k]);
    return wrong;
}

static void read_file(void)
{
    size_t used = 0, room = 0;
    FILE *file = fopen(file_name, "rb");
    if (file == NULL)
        fail("cannot be opened: %s", strerror(errno));
    do {
        char *grown = allocate(room = 2 * room + 65536, 1);
        if (used > 0)
            memcpy(grown, contents, used);
        contents = grown;
        used += fread(contents + used, 1, room - 1 - used, file); /* a zero marks the end */
    } while (used == room - 1);
    if (ferror(file)) {
        const int error = errno;
        fclose(file);
        fail("cannot be read: %s", strerror(error));
    }
    fclose(file);
    cursor = contents;
}

int main(int argc, char **argv)
{
    const Json *file, *vectors;
    const char *dtype;
    int arrays = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: check FILE.json\n");
        return 2;
    }
    atexit(free_all);
    file_name = argv[1];
    read_file();
    file = parse(0);
    if (next_character() != '\0')
        unexpected("the end of the file");
    dtype = member(file, "dtype", '"')->text;
    if (strcmp(member(file, "schema", '"')->text, "manual-bptt/golden-vectors") != 0 ||
        member(file, "version", '0')->number != 1)
        fail("these are not golden vectors of version 1");
    if (strcmp(dtype, "float64") != 0 && strcmp(dtype, "float32") != 0)
        fail("the dtype \"%s\" is unknown", dtype);
    vectors = member(file, "vectors", '[');
    if (vectors->count == 0)
        fail("there are no vectors");
    for (const Json *vector = vectors->first; vector != NULL; vector = vector->next)
        arrays += check(vector, strcmp(dtype, "float32") == 0);
    printf("%lu vectors of %s, 8 gradients each: ", (unsigned long)vectors->count, dtype);
    if (arrays == 0)
        printf("all match\n");
    else
        printf("%d arrays do not match\n", arrays);
    return arrays != 0;
}

#endif
