import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.parser.IParser;
import ca.uhn.fhir.parser.LenientErrorHandler;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.SingleValidationMessage;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.PrePopulatedValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.SnapshotGeneratingValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.UnknownCodeSystemWarningValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;
import org.hl7.fhir.common.hapi.validation.validator.WorkerContextValidationSupportAdapter;
import org.hl7.fhir.instance.model.api.IBaseResource;
import org.hl7.fhir.r4.model.MetadataResource;
import org.hl7.fhir.r5.context.ILoggingService;
import org.hl7.fhir.r5.utils.validation.constants.BestPracticeWarningLevel;

/**
 * The reference validator of FHIR R4, as a process that judges one file per line of its input.
 *
 * <p>Arguments: folders of definitions (JSON or XML); of two with one URL the first counts. For each
 * path read it prints a line: {"path": …, "ms": …, "issues": [[severity, location, id, message], …]}.
 */
public class Judge {
    public static void main(String[] folders) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        FhirContext context = FhirContext.forR4();
        context.setParserErrorHandler(new LenientErrorHandler().disableAllErrors());
        PrePopulatedValidationSupport definitions = new PrePopulatedValidationSupport(context);
        Set<String> seen = new HashSet<>();
        for (String folder : folders) load(context, Path.of(folder), definitions, seen);
        UnknownCodeSystemWarningValidationSupport unknown = new UnknownCodeSystemWarningValidationSupport(context);
        unknown.setNonExistentCodeSystemSeverity(
            ca.uhn.fhir.context.support.IValidationSupport.IssueSeverity.WARNING);
        ValidationSupportChain chain = new ValidationSupportChain(
            new DefaultProfileValidationSupport(context), definitions,
            new CommonCodeSystemsTerminologyService(context),
            new InMemoryTerminologyServerValidationSupport(context),
            new SnapshotGeneratingValidationSupport(context), unknown);
        FhirInstanceValidator module = new FhirInstanceValidator(chain);
        module.setWrappedWorkerContext(chain, new Context(chain));
        module.setErrorForUnknownProfiles(true);
        module.setNoTerminologyChecks(false);
        module.setAnyExtensionsAllowed(false);
        module.setAssumeValidRestReferences(true);
        module.setBestPracticeWarningLevel(BestPracticeWarningLevel.Ignore);
        FhirValidator validator = context.newValidator().registerValidatorModule(module);
        out.println("{\"definitions\": " + seen.size() + "}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String path = in.readLine(); path != null; path = in.readLine()) {
            String text = Files.readString(Path.of(path)).replace("\uFEFF", "");
            long started = System.nanoTime();
            List<String> issues = new ArrayList<>();
            try {
                for (SingleValidationMessage one : validator.validateWithResult(text).getMessages()) {
                    issues.add("[" + quoted(one.getSeverity().getCode()) + "," + quoted(one.getLocationString())
                        + "," + quoted(one.getMessageId()) + "," + quoted(one.getMessage()) + "]");
                }
            } catch (Exception error) {
                issues.add("[\"fatal\",\"\",\"" + error.getClass().getSimpleName() + "\","
                    + quoted(error.getMessage()) + "]");
            }
            double took = (System.nanoTime() - started) / 1e6;
            out.println("{\"path\":" + quoted(path) + ",\"ms\":" + took + ",\"issues\":["
                + String.join(",", issues) + "]}");
        }
    }

    /**
     * What the validator asks of its surroundings, with two answers that it needs to judge definitions
     * and does not get: the release as it lists the releases itself ("4.0.1" is none of those, so that it
     * would fetch a package over the network to have it), and somewhere to log.
     */
    private static class Context extends WorkerContextValidationSupportAdapter {
        Context(IValidationSupport support) {
            super(support);
        }

        @Override
        public String getVersion() {
            return "4.0";
        }

        @Override
        public ILoggingService getLogger() {
            return new ILoggingService() {
                @Override
                public void logMessage(String message) {}

                @Override
                public void logDebugMessage(LogCategory category, String message) {}
            };
        }
    }

    private static void load(
        FhirContext context, Path folder, PrePopulatedValidationSupport into, Set<String> seen) throws IOException {
        List<Path> files;
        try (Stream<Path> walked = Files.walk(folder)) {
            files = walked.filter(Files::isRegularFile).sorted().toList();
        }
        for (Path file : files) {
            String name = file.getFileName().toString();
            boolean isJson = name.endsWith(".json");
            if (name.equals("package.json") || !(isJson || name.endsWith(".xml"))) continue;
            IParser parser = isJson ? context.newJsonParser() : context.newXmlParser();
            IBaseResource resource;
            try {
                resource = parser.parseResource(Files.readString(file).replace("\uFEFF", ""));
            } catch (Exception error) {
                System.err.println(file + ": " + error.getMessage());
                continue;
            }
            if (resource instanceof MetadataResource held && held.getUrl() != null && seen.add(held.getUrl()))
                into.addResource(resource);
        }
    }

    private static String quoted(String text) {
        if (text == null) return "null";
        StringBuilder out = new StringBuilder("\"");
        for (char one : text.toCharArray()) {
            if (one == '"' || one == '\\') out.append('\\').append(one);
            else if (one < ' ') out.append(String.format("\\u%04x", (int) one));
            else out.append(one);
        }
        return out.append('"').toString();
    }
}
