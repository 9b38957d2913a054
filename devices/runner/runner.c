/* Times one ONNX or TFLite file on an arm64 Linux or Android device and prints one JSON document.
 *
 *   runner --runtime onnxruntime|litert --library LIB --model FILE --input RAW
 *          [--shape N,N,..] [--threads N] [--warmup N] [--runs N] [--output RAW]
 *
 * The runtime is opened with dlopen and called through its public C API, so one small program serves
 * any version: ONNX Runtime's function table only ever grows at its end, and LiteRT's functions are
 * found by name. RAW files hold a tensor's bytes, nothing else. Times are of the runtime's run call
 * alone, in milliseconds. The last line says whether the processor is real: under an emulator the
 * running executable is not an arm64 one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_DIMENSIONS = 8, ALIGNMENT = 64 };

typedef struct {
  const char *type; /* as NumPy names it */
  size_t item;      /* bytes of an element */
  int64_t shape[MOST_DIMENSIONS];
  size_t rank;
} Tensor;

typedef struct {
  const char *runtime, *library, *model, *input, *output;
  int64_t shape[MOST_DIMENSIONS]; /* for what the file leaves open */
  size_t rank;
  int threads, warmup, runs;
} Task;

/* What a runtime gives back once a file is loaded. */
typedef struct {
  char version[64];
  Tensor in, out;
  int fully_accelerated; /* LiteRT: every operator on XNNPACK; -1 where unknown */
  void (*run)(void);
  const void *(*result)(size_t *bytes);
} Loaded;

static void put_string(FILE *file, const char *text) {
  fputc('"', file);
  for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
    if (*at == '"' || *at == '\\') fprintf(file, "\\%c", *at);
    else if (*at < 32 || *at > 126) fprintf(file, "\\u%04x", *at);
    else fputc(*at, file);
  }
  fputc('"', file);
}

static void fail(const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  printf("{\"format\": \"pocketgan.runner/1\", \"error\": ");
  put_string(stdout, text);
  printf("}\n");
  fflush(stdout);
  _exit(1);
}

static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* A number of /proc/self/status; memory is in kilobytes. (getrusage would count a parent's peak.) */
static long status_of(const char *field) {
  char line[256];
  long value = -1;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, field, strlen(field))) value = atol(line + strlen(field) + 1);
  if (file) fclose(file);
  return value;
}

static void *read_all(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (!file) fail("cannot open %s", path);
  fseek(file, 0, SEEK_END);
  long length = ftell(file);
  if (length < 0) fail("cannot read %s", path);
  rewind(file);
  void *data = aligned_alloc(ALIGNMENT, (size_t)(length / ALIGNMENT + 1) * ALIGNMENT);
  if (!data || fread(data, 1, (size_t)length, file) != (size_t)length) fail("cannot read %s", path);
  fclose(file);
  *bytes = (size_t)length;
  return data;
}

static size_t bytes_of(const Tensor *tensor) {
  size_t count = tensor->item;
  for (size_t axis = 0; axis < tensor->rank; axis++) count *= (size_t)tensor->shape[axis];
  return count;
}

static void close_shape(Tensor *tensor, const Task *task) {
  for (size_t axis = 0; axis < tensor->rank; axis++) {
    if (tensor->shape[axis] > 0) continue;
    if (task->rank != tensor->rank) fail("the file leaves its input's shape open: give --shape");
    tensor->shape[axis] = task->shape[axis];
  }
}

static void expect_input(const Tensor *tensor, size_t bytes) {
  if (bytes_of(tensor) != bytes)
    fail("the input file holds %zu bytes, the model takes %zu", bytes, bytes_of(tensor));
}

static void *open_library(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fail("cannot load the runtime: %s", dlerror());
  return library;
}

static void *function(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (!found) fail("the runtime has no %s", name);
  return found;
}

/* ---- ONNX Runtime: places in OrtApi, onnxruntime_c_api.h --------------------------------------- */
enum {
  ORT_GetErrorMessage = 2,
  ORT_CreateEnv = 3,
  ORT_CreateSession = 7,
  ORT_Run = 9,
  ORT_CreateSessionOptions = 10,
  ORT_SetSessionGraphOptimizationLevel = 23,
  ORT_SetIntraOpNumThreads = 24,
  ORT_SetInterOpNumThreads = 25,
  ORT_SessionGetInputCount = 30,
  ORT_SessionGetInputTypeInfo = 33,
  ORT_SessionGetInputName = 36,
  ORT_SessionGetOutputName = 37,
  ORT_CreateTensorWithDataAsOrtValue = 49,
  ORT_GetTensorMutableData = 51,
  ORT_CastTypeInfoToTensorInfo = 55,
  ORT_GetTensorElementType = 60,
  ORT_GetDimensionsCount = 61,
  ORT_GetDimensions = 62,
  ORT_GetTensorTypeAndShape = 65,
  ORT_CreateCpuMemoryInfo = 69,
  ORT_GetAllocatorWithDefaultOptions = 78,
  ORT_ReleaseValue = 96,
  ORT_API_VERSION = 5, /* the first that has all of these */
};

typedef struct {
  void *const *(*GetApi)(uint32_t);
  const char *(*GetVersionString)(void);
} OrtApiBase;

static void *const *ort;
static void *ort_session, *ort_input, *ort_output;
static char *ort_input_name, *ort_output_name;

#define ORT(NAME, RESULT, ...) ((RESULT(*)(__VA_ARGS__))ort[ORT_##NAME])

static void ort_check(void *status) {
  if (status) fail("ONNX Runtime: %s", ORT(GetErrorMessage, const char *, const void *)(status));
}

static void ort_describe(const void *info, Tensor *tensor) {
  int type = 0;
  ort_check(ORT(GetTensorElementType, void *, const void *, int *)(info, &type));
  ort_check(ORT(GetDimensionsCount, void *, const void *, size_t *)(info, &tensor->rank));
  if (tensor->rank > MOST_DIMENSIONS) fail("a tensor of %zu dimensions", tensor->rank);
  ort_check(ORT(GetDimensions, void *, const void *, int64_t *, size_t)(info, tensor->shape, tensor->rank));
  switch (type) { /* ONNXTensorElementDataType */
    case 1: tensor->type = "float32", tensor->item = 4; break;
    case 2: tensor->type = "uint8", tensor->item = 1; break;
    case 3: tensor->type = "int8", tensor->item = 1; break;
    case 10: tensor->type = "float16", tensor->item = 2; break;
    default: fail("elements of ONNX type %d are no picture", type);
  }
}

static void ort_run(void) {
  if (ort_output) ORT(ReleaseValue, void, void *)(ort_output);
  ort_output = NULL;
  ort_check(ORT(Run, void *, void *, const void *, const char *const *, const void *const *, size_t,
                const char *const *, size_t, void **)(
      ort_session, NULL, (const char *const *)&ort_input_name, (const void *const *)&ort_input, 1,
      (const char *const *)&ort_output_name, 1, &ort_output));
}

static Loaded *ort_loaded;

static const void *ort_result(size_t *bytes) {
  void *info = NULL, *data = NULL;
  ort_check(ORT(GetTensorTypeAndShape, void *, const void *, void **)(ort_output, &info));
  ort_describe(info, &ort_loaded->out);
  ort_check(ORT(GetTensorMutableData, void *, void *, void **)(ort_output, &data));
  *bytes = bytes_of(&ort_loaded->out);
  return data;
}

static void ort_load(const Task *task, void *data, size_t bytes, Loaded *loaded) {
  void *library = open_library(task->library);
  const OrtApiBase *base = ((const OrtApiBase *(*)(void))function(library, "OrtGetApiBase"))();
  ort = base->GetApi(ORT_API_VERSION);
  if (!ort) fail("this ONNX Runtime is too old: %s", base->GetVersionString());
  snprintf(loaded->version, sizeof loaded->version, "%s", base->GetVersionString());
  void *env = NULL, *options = NULL, *allocator = NULL, *memory = NULL, *info = NULL;
  const void *tensor = NULL;
  size_t inputs = 0;
  ort_check(ORT(CreateEnv, void *, int, const char *, void **)(4, "pocketgan", &env));
  ort_check(ORT(CreateSessionOptions, void *, void **)(&options));
  ort_check(ORT(SetSessionGraphOptimizationLevel, void *, void *, int)(options, 99));
  ort_check(ORT(SetIntraOpNumThreads, void *, void *, int)(options, task->threads));
  ort_check(ORT(SetInterOpNumThreads, void *, void *, int)(options, 1));
  ort_check(ORT(CreateSession, void *, const void *, const char *, const void *, void **)(
      env, task->model, options, &ort_session));
  ort_check(ORT(SessionGetInputCount, void *, const void *, size_t *)(ort_session, &inputs));
  if (inputs != 1) fail("the model has %zu inputs, not one", inputs);
  ort_check(ORT(SessionGetInputTypeInfo, void *, const void *, size_t, void **)(ort_session, 0, &info));
  ort_check(ORT(CastTypeInfoToTensorInfo, void *, const void *, const void **)(info, &tensor));
  ort_describe(tensor, &loaded->in);
  close_shape(&loaded->in, task);
  expect_input(&loaded->in, bytes);
  ort_check(ORT(GetAllocatorWithDefaultOptions, void *, void **)(&allocator));
  ort_check(ORT(SessionGetInputName, void *, const void *, size_t, void *, char **)(
      ort_session, 0, allocator, &ort_input_name));
  ort_check(ORT(SessionGetOutputName, void *, const void *, size_t, void *, char **)(
      ort_session, 0, allocator, &ort_output_name));
  ort_check(ORT(CreateCpuMemoryInfo, void *, int, int, void **)(0, 0, &memory));
  const Tensor *in = &loaded->in;
  int types[] = {1, 2, 3, 10};
  const char *names[] = {"float32", "uint8", "int8", "float16"};
  int type = 0;
  for (int at = 0; at < 4; at++)
    if (!strcmp(names[at], in->type)) type = types[at];
  ort_check(ORT(CreateTensorWithDataAsOrtValue, void *, const void *, void *, size_t, const int64_t *, size_t,
                int, void **)(memory, data, bytes, in->shape, in->rank, type, &ort_input));
  ort_loaded = loaded;
  loaded->run = ort_run;
  loaded->result = ort_result;
}

/* ---- LiteRT: litert/c/litert_compiled_model.h and its neighbours ------------------------------- */
typedef union {
  struct {
    int element;     /* LiteRtElementType */
    uint32_t rank;   /* the low 7 bits */
    int32_t shape[MOST_DIMENSIONS];
  } known;
  char room[512]; /* later fields are LiteRT's own business */
} LiteRtRankedTensorType;

static void *lite, *lite_model, *lite_input, *lite_output;
static Loaded *lite_loaded;
static int (*lite_run_model)(void *, size_t, size_t, void **, size_t, void **);

#define LITE_CHECK(NAME, TYPES, ...) lite_check(#NAME, ((int(*) TYPES)function(lite, #NAME))(__VA_ARGS__))

static void lite_check(const char *name, int status) {
  if (status) fail("LiteRT: %s gave status %d", name, status);
}

static void lite_describe(void *tensor, LiteRtRankedTensorType *type, Tensor *described) {
  memset(type, 0, sizeof *type);
  LITE_CHECK(LiteRtGetRankedTensorType, (void *, LiteRtRankedTensorType *), tensor, type);
  described->rank = type->known.rank & 0x7f;
  if (described->rank > MOST_DIMENSIONS) fail("a tensor of %zu dimensions", described->rank);
  for (size_t axis = 0; axis < described->rank; axis++) described->shape[axis] = type->known.shape[axis];
  switch (type->known.element) {
    case 1: described->type = "float32", described->item = 4; break;
    case 3: described->type = "uint8", described->item = 1; break;
    case 9: described->type = "int8", described->item = 1; break;
    case 10: described->type = "float16", described->item = 2; break;
    default: fail("elements of TFLite type %d are no picture", type->known.element);
  }
}

static void lite_run(void) {
  lite_check("LiteRtRunCompiledModel", lite_run_model(lite_model, 0, 1, &lite_input, 1, &lite_output));
}

static const void *lite_result(size_t *bytes) {
  void *data = NULL;
  LITE_CHECK(LiteRtLockTensorBuffer, (void *, void **, int), lite_output, &data, 0);
  *bytes = bytes_of(&lite_loaded->out);
  return data;
}

static void lite_load(const Task *task, void *data, size_t bytes, Loaded *loaded) {
  void *env = NULL, *model = NULL, *options = NULL, *threads = NULL, *signature = NULL, *tensor = NULL;
  void *needs = NULL, *room = NULL;
  LiteRtRankedTensorType type;
  lite = open_library(task->library);
  LITE_CHECK(LiteRtCreateEnvironment, (int, const void *, void **), 0, NULL, &env);
  LITE_CHECK(LiteRtCreateModelFromFile, (void *, const char *, void **), env, task->model, &model);
  LITE_CHECK(LiteRtCreateOptions, (void **), &options);
  LITE_CHECK(LiteRtSetOptionsHardwareAccelerators, (void *, int), options, 1 /* CPU */);
  char *setting = malloc(64);
  snprintf(setting, 64, "num_threads = %d\n", task->threads);
  LITE_CHECK(LiteRtCreateOpaqueOptions, (const char *, void *, void (*)(void *), void **), "xnnpack", setting,
             free, &threads);
  LITE_CHECK(LiteRtAddOpaqueOptions, (void *, void *), options, threads);
  LITE_CHECK(LiteRtCreateCompiledModel, (void *, void *, void *, void **), env, model, options, &lite_model);
  LITE_CHECK(LiteRtGetModelSignature, (void *, size_t, void **), model, 0, &signature);
  LITE_CHECK(LiteRtGetSignatureInputTensorByIndex, (void *, size_t, void **), signature, 0, &tensor);
  lite_describe(tensor, &type, &loaded->in);
  expect_input(&loaded->in, bytes);
  LITE_CHECK(LiteRtGetCompiledModelInputBufferRequirements, (void *, size_t, size_t, void **), lite_model, 0, 0,
             &needs);
  LITE_CHECK(LiteRtCreateManagedTensorBufferFromRequirements,
             (void *, const LiteRtRankedTensorType *, void *, void **), env, &type, needs, &lite_input);
  LITE_CHECK(LiteRtLockTensorBuffer, (void *, void **, int), lite_input, &room, 1);
  memcpy(room, data, bytes);
  LITE_CHECK(LiteRtUnlockTensorBuffer, (void *), lite_input);
  LITE_CHECK(LiteRtGetSignatureOutputTensorByIndex, (void *, size_t, void **), signature, 0, &tensor);
  lite_describe(tensor, &type, &loaded->out);
  LITE_CHECK(LiteRtGetCompiledModelOutputBufferRequirements, (void *, size_t, size_t, void **), lite_model, 0,
             0, &needs);
  LITE_CHECK(LiteRtCreateManagedTensorBufferFromRequirements,
             (void *, const LiteRtRankedTensorType *, void *, void **), env, &type, needs, &lite_output);
  bool whole = false;
  int (*accelerated)(void *, bool *) = dlsym(lite, "LiteRtCompiledModelIsFullyAccelerated");
  if (accelerated && !accelerated(lite_model, &whole)) loaded->fully_accelerated = whole;
  lite_run_model = function(lite, "LiteRtRunCompiledModel");
  lite_loaded = loaded;
  loaded->run = lite_run;
  loaded->result = lite_result;
}

/* ---- the program -------------------------------------------------------------------------------- */
static double timed(void (*run)(void)) {
  double began = now_ms();
  run();
  return now_ms() - began;
}

static void put_times(const char *name, const double *values, int count) {
  printf("\"%s\": [", name);
  for (int at = 0; at < count; at++) printf("%s%.6f", at ? ", " : "", values[at]);
  printf("], ");
}

static void put_tensor(const char *name, const Tensor *tensor) {
  printf("\"%s\": {\"dtype\": \"%s\", \"shape\": [", name, tensor->type);
  for (size_t axis = 0; axis < tensor->rank; axis++)
    printf("%s%lld", axis ? ", " : "", (long long)tensor->shape[axis]);
  printf("]}, ");
}

/* The program that the kernel runs for us: 183 is EM_AARCH64; an emulator is of its host's kind. */
static bool emulated(void) {
  unsigned char header[20] = {0};
  FILE *file = fopen("/proc/thread-self/exe", "rb");
  bool known = file && fread(header, 1, sizeof header, file) == sizeof header;
  if (file) fclose(file);
  return !known || header[18] != 183 || header[19] != 0;
}

static int number(const char *text, int least) {
  char *end;
  long value = strtol(text, &end, 10);
  if (*end || end == text || value < least || value > 1000000) fail("%s is no number of %d or more", text, least);
  return (int)value;
}

static void parse(int count, char **words, Task *task) {
  for (int at = 1; at < count; at += 2) {
    const char *name = words[at], *value = at + 1 < count ? words[at + 1] : NULL;
    if (!value) fail("%s needs a value", name);
    if (!strcmp(name, "--runtime")) task->runtime = value;
    else if (!strcmp(name, "--library")) task->library = value;
    else if (!strcmp(name, "--model")) task->model = value;
    else if (!strcmp(name, "--input")) task->input = value;
    else if (!strcmp(name, "--output")) task->output = value;
    else if (!strcmp(name, "--threads")) task->threads = number(value, 1);
    else if (!strcmp(name, "--warmup")) task->warmup = number(value, 0);
    else if (!strcmp(name, "--runs")) task->runs = number(value, 0);
    else if (!strcmp(name, "--shape")) {
      char copy[128], *rest = copy, *side;
      snprintf(copy, sizeof copy, "%s", value);
      while (task->rank < MOST_DIMENSIONS && (side = strsep(&rest, ",")))
        task->shape[task->rank++] = number(side, 1);
    } else fail("there is no option %s", name);
  }
  if (!task->runtime || !task->library || !task->model || !task->input)
    fail("--runtime, --library, --model and --input are needed");
}

int main(int count, char **words) {
  Task task = {.threads = 1, .warmup = 1, .runs = 10};
  Loaded loaded = {.fully_accelerated = -1};
  parse(count, words, &task);
  size_t bytes = 0;
  void *data = read_all(task.input, &bytes);
  long base = status_of("VmRSS");
  double began = now_ms();
  if (!strcmp(task.runtime, "onnxruntime")) ort_load(&task, data, bytes, &loaded);
  else if (!strcmp(task.runtime, "litert")) lite_load(&task, data, bytes, &loaded);
  else fail("there is no runtime %s", task.runtime);
  double init = now_ms() - began;
  double first = timed(loaded.run);
  double *warmup = calloc((size_t)task.warmup + 1, sizeof *warmup);
  double *samples = calloc((size_t)task.runs + 1, sizeof *samples);
  if (!warmup || !samples) fail("not enough memory");
  for (int at = 0; at < task.warmup; at++) warmup[at] = timed(loaded.run);
  for (int at = 0; at < task.runs; at++) samples[at] = timed(loaded.run);
  const unsigned char *result = loaded.result(&bytes);
  uint64_t hash = 14695981039346656037u; /* FNV-1a, 64 bits */
  for (size_t at = 0; at < bytes; at++) hash = (hash ^ result[at]) * 1099511628211u;
  if (task.output) {
    FILE *file = fopen(task.output, "wb");
    if (!file || fwrite(result, 1, bytes, file) != bytes || fclose(file)) fail("cannot write %s", task.output);
  }
  printf("{\"format\": \"pocketgan.runner/1\", \"runtime\": \"%s\", \"version\": ", task.runtime);
  put_string(stdout, loaded.version);
  printf(", \"threads\": %d, \"init_ms\": %.6f, \"first_ms\": %.6f, ", task.threads, init, first);
  put_times("warmup_ms", warmup, task.warmup);
  put_times("samples_ms", samples, task.runs);
  put_tensor("input", &loaded.in);
  put_tensor("output", &loaded.out);
  if (loaded.fully_accelerated >= 0)
    printf("\"fully_accelerated\": %s, ", loaded.fully_accelerated ? "true" : "false");
  printf("\"base_rss_kb\": %ld, \"peak_rss_kb\": %ld, ", base, status_of("VmHWM"));
  printf("\"process_threads\": %ld, ", status_of("Threads"));
  printf("\"output_bytes\": %zu, \"output_fnv1a64\": \"%016llx\", ", bytes, (unsigned long long)hash);
  printf("\"emulated\": %s}\n", emulated() ? "true" : "false");
  fflush(stdout);
  _exit(0); /* the runtimes' own endings are not ours to time or to crash in */
}
